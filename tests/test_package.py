"""package: one graph of branches or local functions runs, in one session, what the clones run as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.core.verifier import check_structure
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.clone_decode import CloneDecode
from onnx_llm_passes.passes.keep_last_logits import KeepLastLogits
from onnx_llm_passes.passes.package import Package, Packaging
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.verify.verify import verify

ONE = [Packaging.BRANCHES, Packaging.FUNCTIONS]
one = pytest.mark.parametrize("packaging", ONE, ids=lambda p: p.value)


def kept_rows() -> ir.Model:
    model = scatter_decoder()
    KeepLastLogits(symbol="num_logits_to_keep").call(model)
    return model


def packed(packaging: Packaging, model: ir.Model, **options: Any) -> Program:
    program = Program({"model": model})
    CloneDecode(**{"ctx": 32, "k": (0, 1, 4), "prefill": 8, **options}).run(program)
    Package(packaging).run(program)
    return program


def feeds(session: ort.InferenceSession, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else sizes[size] for size in value.shape]
        floats = value.type == "tensor(float)"
        made[value.name] = random.standard_normal(shape).astype(np.float32) if floats else np.ones(shape, np.int64)
    return made


@one
@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("build", [append_decoder, kept_rows])
def test_one_graph_decodes_as_the_original(tmp_path: Path, packaging: Packaging, fold: bool, build: Any) -> None:
    program = packed(packaging, build(), fold=fold)
    check_structure(program.graphs["model"])
    program.save(tmp_path)
    report = verify(Program({"model": build()}), Program.load(tmp_path))
    assert report.equal, report.first_difference
    assert report.runs >= 8


@one
def test_one_session_runs_every_length_as_its_file_does(tmp_path: Path, packaging: Packaging) -> None:
    files = Program({"model": append_decoder()})
    CloneDecode(ctx=32, k=(0, 1, 4), prefill=8).run(files)
    files.save(tmp_path / "files")
    program = packed(packaging, append_decoder())
    program.save(tmp_path / "one")
    whole = ort.InferenceSession(tmp_path / "one" / "model.onnx")
    for spec in program.specializations:
        session = ort.InferenceSession(tmp_path / "files" / f"{spec.name}.onnx")
        given = feeds(whole, spec.binding)
        for mine, theirs in zip(whole.run(None, given), session.run(None, given), strict=True):
            assert mine.shape == theirs.shape
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())


@one
@pytest.mark.parametrize("length", [3, 7, 9])
def test_another_length_is_an_error_of_the_run(packaging: Packaging, length: int) -> None:
    program = packed(packaging, append_decoder())
    session = ort.InferenceSession(ir.to_proto(program.graphs["model"]).SerializeToString())
    sizes = {**program.specializations[0].binding, "sequence_length": length, "past_sequence_length": 32 - length}
    with pytest.raises(Exception, match=r"[Rr]eshape"):
        session.run(None, feeds(session, sizes))


@one
def test_weights_are_held_once(tmp_path: Path, packaging: Packaging) -> None:
    program = packed(packaging, append_decoder())
    alone = sum(v.const_value.nbytes for v in append_decoder().graph.initializers.values() if v.const_value is not None)
    assert program.save(tmp_path).moved <= alone * 1.1
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    branches = [a.g for node in model.graph.node for a in node.attribute if a.g.node]
    assert not any(tensor.name == "lm_head.weight" for branch in branches for tensor in branch.initializer)


def test_functions_are_named_after_their_graphs() -> None:
    model = packed(Packaging.FUNCTIONS, append_decoder()).graphs["model"]
    names = [function.name for function in model.functions.values() if function.domain == "onnx_llm_passes"]
    assert names == ["Prefill", "Decode_K0", "Decode_K1", "Decode_K4"]


@one
def test_graphs_of_one_length_are_told_apart_by_another_size(packaging: Packaging) -> None:
    program = packed(packaging, kept_rows(), prefill=5)
    report = verify(Program({"model": kept_rows()}), program)
    assert report.equal, report.first_difference


@one
def test_attended_contexts_are_told_apart(packaging: Packaging) -> None:
    model = scatter_decoder(compute_context=True, no_index=0)
    program = packed(packaging, model, k=(0,), ccl=(16, 32))
    session = ort.InferenceSession(ir.to_proto(program.graphs["model"]).SerializeToString())
    assert len(program.specializations) == 4
    for spec in program.specializations:
        assert session.run(None, feeds(session, spec.binding))[0].shape[1] == 1


@one
def test_graphs_that_no_size_tells_apart_are_refused(packaging: Packaging) -> None:
    with pytest.raises(PassRefused, match="do not tell these graphs apart"):
        packed(packaging, append_decoder(), k=(4,), prefill=5)
    with pytest.raises(PassRefused, match="static=true"):
        packed(packaging, append_decoder(), static=False)


def test_a_refusal_changes_nothing() -> None:
    program = Program({"model": append_decoder()})
    CloneDecode(ctx=32, k=(4,), prefill=5).run(program)
    with pytest.raises(PassRefused):
        Package(Packaging.BRANCHES).run(program)
    assert program.names == ["prefill", "decode_k4"]
    assert len(program.graphs["model"].graph) == len(append_decoder().graph)


@one
def test_without_clones_there_is_nothing_to_pack(packaging: Packaging) -> None:
    with pytest.raises(PassRefused, match="clone-decode"):
        Package(packaging).run(Program({"model": append_decoder()}))


def test_files_change_nothing() -> None:
    program = Program({"model": append_decoder()})
    CloneDecode(ctx=32, k=(0, 4)).run(program)
    report = Package().run(program)
    assert not report.modified
    assert report.notes == ("2 files share one weight file",)


def test_pipeline_text() -> None:
    assert parse_pipeline("package{as=functions}") == [Package(Packaging.FUNCTIONS)]
