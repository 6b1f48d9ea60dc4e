"""A sweep that looks only at what an edit changed finds what a whole sweep finds."""

from __future__ import annotations

import re
from collections.abc import Callable

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.shapes.infer import Facts, Trust, propagate
from onnx_llm_passes.ir.shapes.infer.resweep import Resweep

from .builders import BUILDERS


def told(model: ir.Model, facts: Facts) -> list[str]:
    """The facts of every value in order, fresh symbols by the order in which they come."""
    numbers: dict[str, str] = {}

    def number(found: re.Match[str]) -> str:
        return numbers.setdefault(found.group(), f"?{len(numbers)}")

    values = [v for node in model.graph for v in node.outputs]
    return [re.sub(r"\?\d+", number, f"{v.name} {facts.shape(v)} {facts.ints(v)}") for v in values]


def rename_past(model: ir.Model) -> None:
    for value in model.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape(["other" if str(d).startswith(("past", "ctx")) else d for d in value.shape])


def put_between(model: ir.Model) -> None:
    for node in list(model.graph):
        if node.op_type in ("MatMul", "Reshape") and node.inputs[0] is not None:
            between = ir.node("Neg", [node.inputs[0]])
            model.graph.insert_before(node, between)
            node.replace_input_with(0, between.outputs[0])


def cut_out(model: ir.Model) -> None:
    for node in list(model.graph):
        if node.op_type in ("Cast", "Identity") and node.inputs[0] is not None:
            node.outputs[0].replace_all_uses_with(node.inputs[0], replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
            return


def other_axes(model: ir.Model) -> None:
    for node in model.graph:
        if node.op_type == "Transpose":
            perm = list(node.attributes["perm"].as_ints())
            node.attributes["perm"] = ir.AttrInt64s("perm", [*perm[:-2], perm[-1], perm[-2]])
            return


def another_constant(model: ir.Model) -> None:
    for value in model.graph.initializers.values():
        if (
            value.const_value is not None
            and value.const_value.dtype is ir.DataType.INT64
            and value.const_value.size == 1
        ):
            value.const_value = ir.tensor(value.const_value.numpy() + 1)
            return


EDITS = (rename_past, put_between, cut_out, other_axes, another_constant)


@pytest.mark.parametrize("name", BUILDERS)
def test_what_follows_from_an_edit_is_found(name: str) -> None:
    model = BUILDERS[name]()
    sweep = Resweep(model, {}, Trust.INPUTS)
    assert told(model, sweep.run()) == told(model, propagate(model, trust=Trust.INPUTS))
    for edit in EDITS:
        edit(model)
        assert told(model, sweep.run()) == told(model, propagate(model, trust=Trust.INPUTS)), edit.__name__


def test_only_what_changed_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    model = BUILDERS["append"]()
    sweep = Resweep(model, {}, Trust.INPUTS)
    sweep.run()
    asked: list[str] = []
    visit: Callable[..., None] = Resweep.visit
    monkeypatch.setattr(Resweep, "visit", lambda self, ctx, node: (asked.append(node.op_type), visit(self, ctx, node)))
    sweep.run()
    assert asked == []
    model.graph.append(ir.node("Neg", [model.graph.outputs[0]]))
    sweep.run()
    assert asked == ["Neg"]
