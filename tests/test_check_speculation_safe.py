"""check-speculation-safe: what exported models allow, and that a check leaves every graph as it is."""

from __future__ import annotations

import os
from pathlib import Path

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.proof.rollback import speculation_findings
from onnx_llm_passes.passes.check_speculation_safe import CheckSpeculationSafe

from .builders import BUILDERS
from .harness import find_cases, read_case

MODELS = os.environ.get("ONNX_PASSES_MODELS")
ROOT = Path(__file__).parent / "fixtures"
CASES = {path.stem: path for path in find_cases(ROOT) if path.parent.name == "check-speculation-safe"}


def graph(name: str) -> ir.Model:
    return ir.from_onnx_text(read_case(CASES[name]).before)


@pytest.mark.parametrize("name", CASES)
def test_a_check_changes_nothing(name: str) -> None:
    model = graph(name)
    before = ir.to_onnx_text(model)
    speculation_findings(model, 4)
    assert ir.to_onnx_text(model) == before


@pytest.mark.parametrize("name", CASES)
def test_k_0_is_always_safe(name: str) -> None:
    assert not speculation_findings(graph(name), 0).problems


@pytest.mark.parametrize(("k", "safe"), [(1, True), (4, True), (5, False)])
def test_a_ring_takes_as_many_proposals_as_it_has_rows_beyond_its_window(k: int, safe: bool) -> None:
    assert (not speculation_findings(graph("noop-ring-spare"), k).problems) is safe


@pytest.mark.parametrize(("window", "safe"), [(0, False), (4, False), (5, True)])
def test_a_convolution_needs_a_snapshot_for_each_token(window: int, safe: bool) -> None:
    model = graph("convolution")
    node = next(node for node in model.graph if node.op_type == "CausalConvWithState")
    node.attributes["state_window"] = ir.AttrInt64("state_window", window)
    assert (not speculation_findings(model, 4).problems) is safe


def test_every_reason_is_told_once_with_what_would_help() -> None:
    with pytest.raises(PassRefused) as caught:
        CheckSpeculationSafe(k=(2,)).run(Program({"g": graph("ring")}))
    text = str(caught.value)
    assert text.count("overwrite the oldest live rows") == 1
    assert "past_key, past_value" in text
    assert "at least window + 2 rows" in text


def test_the_ks_of_the_programs_own_specializations_are_checked() -> None:
    from onnx_llm_passes.ir.core.specialization import Specialization, SpecRole

    program = Program({"g": graph("noop-ring-spare")})
    role = next(role for role in SpecRole if role.value == "decode")
    program.specializations = [Specialization(name="d", role=role, binding={"S": 6}, k=5)]
    with pytest.raises(PassRefused, match="K=5"):
        CheckSpeculationSafe().run(program)


@pytest.mark.parametrize("name", ["append", "append dynamo", "scatter", "scatter batch index", "tensor scatter"])
def test_caches_of_every_idiom_can_be_rolled_back(name: str) -> None:
    found = speculation_findings(BUILDERS[name](), 4)
    assert found.states
    assert not found.problems


def exported() -> list[Path]:
    return sorted(Path(MODELS).glob("*/*.onnx")) if MODELS else []


REFUSED = {  # what the models that the project's issues name must be refused for
    "genai-gemma2-fp32-cpu/model": "ring",
    "genai-lfm2-fp32-cpu/model": "recurrent state",
    "hf-dyn-lfm2/decode": "recurrent state",
    "hf-dyn-llama-cpu/decode": "1 token a run",
    "hf-dyn-llama/decode": "1 token a run",
    "hf-dyn-mamba/decode": "recurrent state",
    "hf-staticcache-llama/decode": "1 token a run",
    "hf-staticcache-llama/prefill": "6 tokens a run",
    "optimum-whisper-automatic/decoder_model_merged": "inside a branch",
    "torch-static-llama/model": "3 tokens a run",
}


@pytest.mark.skipif(not exported(), reason="ONNX_PASSES_MODELS names no folder of exported models")
@pytest.mark.parametrize("path", exported(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_exported_model(path: Path) -> None:
    reason = REFUSED.get(f"{path.parent.name}/{path.stem}")
    program = Program.load(path)
    if reason is None:
        assert not CheckSpeculationSafe(k=(0, 4)).run(program).modified
        return
    with pytest.raises(PassRefused, match=reason):
        CheckSpeculationSafe(k=(0, 4)).run(program)


@pytest.mark.skipif(not exported(), reason="ONNX_PASSES_MODELS names no folder of exported models")
@pytest.mark.parametrize("name", ["hf-dyn-llama", "hf-dyn-llama-cpu"])
def test_a_length_of_1_that_only_the_nodes_hold_is_found_by_binding(name: str) -> None:
    model = Program.load(Path(str(MODELS)) / name / "decode.onnx").graphs["decode"]
    for value in model.graph.inputs:
        if value.shape is not None and len(value.shape) == 2:
            value.shape = ir.Shape([value.shape[0], "length"])
    found = speculation_findings(model, 4)
    assert [problem for problem in found.problems if "breaks with 5 tokens" in problem.reason]
