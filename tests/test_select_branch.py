"""select-branch: the branch taken computes what the If computed, and the other one leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import OnnxPassesError, PassRefused, UsageError
from onnx_llm_passes.ir.core.scopes import nested
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

from .harness import canonical, execute

TEXT = """<ir_version: 10, opset_import: ["" : 18]>
g (float[N] x, float[M] only_then, bool[1] switch) => (float[K] y)
{
   no = Not (switch)
   y = If (no) <
      then_branch = other () => (float[K] u) { u = Neg (x) },
      else_branch = taken () => (float[K] v) {
         v = If (switch) <
            then_branch = inner () => (float[K] w) { w = Concat <axis = 0> (x, only_then) },
            else_branch = never () => (float[K] z) { z = Abs (x) }
         >
      }
   >
}"""
PLAIN = '<ir_version: 10, opset_import: ["" : 18]> h (float[N] x) => (float[N] y) { y = Neg (x) }'
FEEDS = {"x": np.array([1.0, -2.0], np.float32), "only_then": np.array([3.0], np.float32)}


def graph(text: str = TEXT) -> ir.Model:
    return ir.from_onnx_text(text)


def selected(value: bool, model: ir.Model) -> Program:
    text = f"select-branch{{input=switch value={str(value).lower()}}}"
    return PassManager(parse_pipeline(text)).run(Program({"g": model}))


@pytest.mark.parametrize("value", [True, False])
def test_the_branch_taken_gives_what_the_if_gave(value: bool) -> None:
    model = selected(value, graph()).graphs["g"]
    assert "If" not in [node.op_type for scope in nested(model.graph) for node in scope]
    names = [found.name for found in model.graph.inputs]
    assert names == (["x", "only_then"] if value else ["x"])
    (wanted,) = execute(graph(), {**FEEDS, "switch": np.array([value])}).values()
    (found,) = execute(model, {name: FEEDS[str(name)] for name in names}).values()
    assert np.array_equal(wanted, found)


def test_the_saved_result_verifies_with_the_switch_fed_as_it_was_fixed(tmp_path: Path) -> None:
    result = selected(True, graph())
    result.save(tmp_path / "out")
    again = Program.load(tmp_path / "out")
    assert any("switch" in str(assumption) for assumption in again.assumptions)
    report = verify(Program({"g": graph()}), again)
    assert (report.verdict, report.runs > 0) == (Verdict.EQUAL, True)


def test_an_input_that_decides_nothing_is_refused_and_named_with_its_use() -> None:
    text = (
        TEXT.replace("no = Not (switch)", "big = Greater (x, x)\n no = Slice (big, a, b)")
        .replace("g (float", "g (int64[1] a, int64[1] b, float")
        .replace("If (switch)", "If (no)")
    )
    model = graph(text)
    before = canonical(model)
    with pytest.raises(PassRefused, match="'switch' decides no If; found no use"):
        selected(True, model)
    assert canonical(model) == before


def test_options_must_be_given_and_are_typed() -> None:
    with pytest.raises(UsageError, match="option 'value' must be given"):
        parse_pipeline("select-branch{input=switch}")
    with pytest.raises(UsageError, match="maybe"):
        parse_pipeline("select-branch{input=switch value=maybe}")


def test_a_second_graph_without_the_input_leaves_the_first_as_it_was() -> None:
    program = Program({"a": graph(), "b": graph(PLAIN)})
    before = {name: canonical(model) for name, model in program.graphs.items()}
    with pytest.raises(OnnxPassesError, match="switch"):
        PassManager(parse_pipeline("select-branch{input=switch value=true}")).run(program)
    assert {name: canonical(model) for name, model in program.graphs.items()} == before
