"""verify on converted graphs: texts played chunk by chunk, states fed back, and every way of being wrong shows."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.convert_states import ConvertStates, To
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.verify.report import Verdict, VerifyReport
from onnx_llm_passes.runtime.verify.verify import verify

from .append_graphs import append_other_axes, append_plain, baked_length, one_token
from .convert_tools import convert

ALONE, UNEVEN = "batch 1, chunk by chunk", "batch 3, chunk by chunk, rows of unequal length"


def verified(before: ir.Model, after: ir.Model) -> VerifyReport:
    return verify(Program({"model": before}), Program({"model": after}))


@pytest.mark.parametrize(
    ("build", "to"),
    [
        (append_decoder, To.SCATTER),
        (append_plain, To.SCATTER),
        (append_other_axes, To.SCATTER),
        (append_decoder, To.DELTA),
        (lambda: one_token(window=4), To.SCATTER),
    ],
)
def test_a_conversion_is_equal_over_many_runs(build: Callable[[], ir.Model], to: To) -> None:
    report = verified(build(), convert(build(), to=to))
    assert report.verdict is Verdict.EQUAL, report.first_difference
    assert [case.case for case in report.cases] == [ALONE, UNEVEN]


def test_logits_of_last_rows_alone_are_compared_without_padding() -> None:
    report = verified(scatter_decoder(), convert(scatter_decoder(), to=To.APPEND))
    assert report.verdict is Verdict.EQUAL, report.first_difference
    assert [case.case for case in report.cases] == [ALONE, "batch 3, chunk by chunk"]


def test_positions_of_another_row_are_found() -> None:
    after = convert(append_decoder())
    positions = next(v for v in after.graph.inputs if v.name == "position_ids")
    first = ir.node("Slice", [positions, *(_ints(after, at) for at in (0, 1, 0))])
    shared = ir.node("Expand", [first.outputs[0], ir.node("Shape", [positions]).outputs[0]])
    for node, index in tuple(positions.uses()):
        if node.op_type != "Shape":
            node.replace_input_with(index, shared.outputs[0])
    first.replace_input_with(0, positions)
    shape = shared.inputs[1]
    assert shape is not None
    size = shape.producer()
    assert size is not None
    after.graph.insert_before(after.graph[0], [first, size, shared])
    found = {case.case: case.equal for case in verified(append_decoder(), after).cases}
    assert found == {ALONE: True, UNEVEN: False}


def _ints(model: ir.Model, number: int) -> ir.Value:
    value = ir.Value(name=f"damage/{number}", const_value=ir.tensor([number], name=f"damage/{number}"))
    value.dtype, value.shape = ir.DataType.INT64, ir.Shape([1])
    model.graph.initializers.setdefault(value.name or "", value)
    return model.graph.initializers[value.name or ""]


def test_a_damaged_weight_is_found() -> None:
    after = convert(append_decoder())
    weight = after.graph.initializers["lm_head.weight"]
    assert weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * 1.001, name=weight.name)
    report = verified(append_decoder(), after)
    assert report.verdict is Verdict.DIFFERENT
    assert "logits" in report.first_difference


def test_a_past_of_fixed_length_is_played_as_far_as_it_reaches() -> None:
    after = baked_length()
    ConvertStates(to=To.DELTA).call(after)
    report = verified(baked_length(), after)
    assert report.verdict is Verdict.EQUAL, report.first_difference
    assert [case.case for case in report.cases] == ["batch 2, chunk by chunk"]


def test_what_cannot_be_played_is_compared_in_first_runs() -> None:
    report = verified(append_decoder(), convert(append_decoder(), ctx="4"))
    assert any("only first runs are compared" in note for note in report.notes)
    assert report.runs
