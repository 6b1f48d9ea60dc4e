"""select-input: an input of any type is fixed, what it decides is folded, and the result verifies with it fed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import OnnxPassesError, PassRefused, UsageError
from onnx_llm_passes.ir.program.contracts.interface import FixedSwitch
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

from .harness import canonical, execute

RATE = """<ir_version: 10, opset_import: ["" : 18]>
g (float[N] x, float[M] only_wide, int64 sr) => (float[K] y)
{
   rate = Constant <value_int: int = 16000> ()
   wide = Equal (sr, rate)
   y = If (wide) <
      then_branch = taken () => (float[K] u) { u = Concat <axis = 0> (x, only_wide) },
      else_branch = other () => (float[K] v) { v = Neg (x) }
   >
}"""
FEEDS = {"x": np.array([1.0, -2.0], np.float32), "only_wide": np.array([3.0], np.float32)}


def scaled(kind: str) -> ir.Model:
    text = f'<ir_version: 10, opset_import: ["" : 18]> g ({kind}[B,3] x, {kind}[3] s) => ({kind}[B,3] y)'
    return ir.from_onnx_text(text + " { y = Mul (x, s) }")


def fixed(model: ir.Model, name: str, value: str) -> Program:
    return PassManager(parse_pipeline(f"select-input{{input={name} value={value}}}")).run(Program({"g": model}))


@pytest.mark.parametrize("rate", [16000, 8000])
def test_the_branch_of_an_integer_switch_gives_what_the_if_gave(rate: int) -> None:
    model = fixed(ir.from_onnx_text(RATE), "sr", str(rate)).graphs["g"]
    assert "If" not in [node.op_type for node in model.graph]
    names = [str(found.name) for found in model.graph.inputs]
    assert names == (["x", "only_wide"] if rate == 16000 else ["x"])
    (wanted,) = execute(ir.from_onnx_text(RATE), {**FEEDS, "sr": np.array(rate)}).values()
    (found,) = execute(model, {name: FEEDS[name] for name in names}).values()
    assert np.array_equal(wanted, found)


@pytest.mark.parametrize(
    ("kind", "value", "held"),
    [("float", "0.1,2,-3", (float(np.float32(0.1)), 2.0, -3.0)), ("int64", "4", 4), ("double", "0.1", 0.1)],
)
def test_the_saved_result_verifies_with_the_value_it_was_fixed_to(
    kind: str, value: str, held: object, tmp_path: Path
) -> None:
    result = fixed(scaled(kind), "s", value)
    assert [link.value for link in result.contracts if isinstance(link, FixedSwitch)] == [held]
    result.save(tmp_path / "out")
    report = verify(Program({"g": scaled(kind)}), Program.load(tmp_path / "out"))
    assert (report.verdict, report.runs > 0) == (Verdict.EQUAL, True)


def test_the_contract_names_a_value_that_differs_in_one_element() -> None:
    contract = FixedSwitch("s", (1, 2))
    contract.holds({"s": np.array([1, 2])})
    with pytest.raises(OnnxPassesError, match=r"input 's'.*found \[1, 3\]; wanted 1, 2"):
        contract.holds({"s": np.array([1, 3])})
    assert contract.constrained({"s": np.array([[0.0], [0.0]])})["s"].tolist() == [[1.0], [2.0]]
    assert FixedSwitch.from_json(contract.to_json()) == contract


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("sr", "1.5", "'1.5' for INT64"),
        ("sr", "9223372036854775808", "for INT64"),
        ("sr", "true", "'true' for INT64"),
        ("sr", "1,2", "2 values; wanted 1"),
        ("rate", "1", "unknown input 'rate'.*x, only_wide, sr"),
    ],
)
def test_what_the_caller_gets_wrong_is_said_and_changes_nothing(name: str, value: str, says: str) -> None:
    model = ir.from_onnx_text(RATE)
    before = canonical(model)
    with pytest.raises(UsageError, match=says):
        fixed(model, name, value)
    assert canonical(model) == before


def test_the_next_step_for_a_symbolic_shape_works() -> None:
    with pytest.raises(PassRefused, match=r"Put specialize\{family=raw symbols=M:1\},bind before this pass"):
        fixed(ir.from_onnx_text(RATE), "only_wide", "1")
    text = "specialize{family=raw symbols=N:2,M:1,K:3},bind,select-input{input=only_wide value=1}"
    model = PassManager(parse_pipeline(text)).run(Program({"g": ir.from_onnx_text(RATE)})).graphs["g"]
    assert [value.name for value in model.graph.inputs] == ["x", "sr"]


def test_a_number_that_overflows_the_element_type_is_refused() -> None:
    with pytest.raises(UsageError, match="'70000' for FLOAT16"):
        fixed(scaled("float16"), "s", "70000")


SILERO = importlib.util.find_spec("silero_vad")


@pytest.mark.skipif(SILERO is None, reason="the package silero-vad is not installed")
@pytest.mark.parametrize("file", ["silero_vad", "silero_vad_16k_op15", "silero_vad_op18_ifless"])
def test_the_sample_rate_of_silero_is_fixed(file: str) -> None:
    assert SILERO is not None and SILERO.submodule_search_locations
    path = Path(SILERO.submodule_search_locations[0]) / "data" / f"{file}.onnx"
    result = fixed(ir.load(path), "sr", "16000").graphs["g"]
    assert [value.name for value in result.graph.inputs] == ["input", "state"]
    feeds = {"input": np.linspace(-1, 1, 576, dtype=np.float32)[None], "state": np.zeros((2, 1, 128), np.float32)}
    wanted = execute(ir.load(path), {**feeds, "sr": np.array(16000)})
    for name, found in execute(result, feeds).items():
        np.testing.assert_allclose(found, wanted[name], rtol=1e-4, atol=1e-5)
