"""Of parts that are alike but for their weights one is run in place of all; what is not alike is run too."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import NotEqualError
from onnx_llm_passes.ir.interface.analysis import analysis_of
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.rewrite.layer.fewer import find_parts
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.samples.blocks import Tiny
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.verify import prove_run
from onnx_llm_passes.runtime.verify.fewer_parts import with_fewer_parts
from onnx_llm_passes.runtime.verify.prove_run import Prove, prove_result

LAYERS = 6
SPECULATIVE = "speculative{k=0,2 prefill=8 ctx=32}"
BUILDERS = {"append": append_decoder, "scatter": scatter_decoder}


def written(folder: Path, builder: str = "append") -> Path:
    Program(graphs={"model": BUILDERS[builder](Tiny(layers=LAYERS, hidden=64))}).save(folder)
    return folder


def result_of(folder: Path, pipeline: str) -> Program:
    return PassManager(parse_pipeline(pipeline)).run(Program.load(folder))


def proved(folder: Path, result: Program, patch: pytest.MonkeyPatch) -> str:
    """What is said where the whole is too large to be run, and one part of each kind is not."""
    nodes = sum(len(model.graph) for model in result.graphs.values()) * max(len(result.clones), 1)
    patch.setattr(prove_run, "MAX_NODES", nodes - 1)
    return prove_result(lambda: Program.load(folder), result, 0, Prove.AUTO).text


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("pipeline", ["single-shot", SPECULATIVE])
def test_one_part_of_each_kind_is_run(
    builder: str, pipeline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = proved(written(tmp_path, builder), result_of(tmp_path, pipeline), monkeypatch)
    assert said.startswith("proved by running it on tiny sizes: equal in")
    assert "like another but for their weights were left out" in said


def test_the_graphs_that_were_given_stay_as_they_are(tmp_path: Path) -> None:
    result = result_of(written(tmp_path), "single-shot")
    before = len(result.graphs["model"].graph)
    fewer = with_fewer_parts(Program.load(tmp_path), result)
    assert fewer is not None
    assert fewer.left_out >= LAYERS
    assert len(result.graphs["model"].graph) == before > len(fewer.result.graphs["model"].graph)
    layers = {name for name in analysis_of(fewer.original.graphs["model"]).roles if "past" in name}
    assert len(layers) < 2 * LAYERS
    ir.to_proto(fewer.result.graphs["model"])


@pytest.mark.parametrize("layer", range(LAYERS))
def test_a_fault_in_any_layer_is_found(layer: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = result_of(written(tmp_path), "single-shot")
    softmax = [node for node in result.graphs["model"].graph if node.op_type == "Softmax"][layer]
    unmasked = softmax.inputs[0].producer()  # pyright: ignore[reportOptionalMemberAccess]
    assert unmasked is not None
    softmax.replace_input_with(0, unmasked.inputs[0])
    with pytest.raises(NotEqualError, match="logits: values differ"):
        proved(tmp_path, result, monkeypatch)


def test_parts_that_carry_each_other_s_caches_are_of_a_kind_of_their_own() -> None:
    plain, other = (append_decoder(Tiny(layers=LAYERS)) for _ in range(2))
    pasts = [value for value in other.graph.inputs if (value.name or "").startswith("past")]
    uses = [list(pasts[at].uses()) for at in (4, 6)]
    for at, found in ((6, uses[0]), (4, uses[1])):
        for node, index in found:
            node.replace_input_with(index, pasts[at])
    kinds = [len({p.mark for p in find_parts(model, analysis_of(model).roles)}) for model in (plain, other)]
    assert kinds[1] > kinds[0]
