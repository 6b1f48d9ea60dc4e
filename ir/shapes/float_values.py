"""Values of a graph that hold floats are found by element types, inferred from what produces them."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ..core.constants import constant_of
from ..core.operators import of


def element_types(model: ir.Model) -> dict[ir.Value, ir.DataType]:
    """The element type of every value of the main graph, as far as declarations and producers tell."""
    known: dict[ir.Value, ir.DataType] = {}
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        _note(known, value, value.const_value.dtype if value.const_value is not None else value.dtype)
    for node in model.graph:
        found = _type_of(node, known)
        for index, value in enumerate(node.outputs):
            by_index = ir.DataType.INT64 if index and of(node).index_results else found
            _note(known, value, value.dtype or by_index)
    return known


def float_values(model: ir.Model) -> list[ir.Value]:
    """The float values that a run computes or is given, in graph order: inputs first, constants not among them."""
    known = element_types(model)
    constant = set(model.graph.initializers.values())
    computed: list[ir.Value] = []
    for node in model.graph:
        if all(value is None or value in constant for value in node.inputs) and not node.op_type.startswith("Random"):
            constant.update(node.outputs)  # the same in every run: a weight under another name
        else:
            computed.extend(node.outputs)
    given = [value for value in model.graph.inputs if not value.is_initializer()]
    return [v for v in (*given, *computed) if v.name and v in known and known[v].is_floating_point()]


def _note(known: dict[ir.Value, ir.DataType], value: ir.Value, dtype: ir.DataType | None) -> None:
    if dtype is not None:
        known[value] = dtype


def _type_of(node: ir.Node, known: Mapping[ir.Value, ir.DataType]) -> ir.DataType | None:
    rule = of(node).dtype
    if isinstance(rule, ir.DataType):
        return rule
    if node.op_type == "Cast":
        to = node.attributes.get("to")
        return ir.DataType(to.as_int()) if to is not None else None
    row = of(node)
    if row.by_value:
        return _constant_type(node)
    if row.quantizes:
        zero = node.inputs[2] if len(node.inputs) > 2 else None
        return known.get(zero) if zero is not None else row.default
    first = rule or 0
    ordered = [*node.inputs[first : first + 1], *node.inputs]
    return next((known[value] for value in ordered if value is not None and value in known), None)


def _constant_type(node: ir.Node) -> ir.DataType | None:
    tensor = constant_of(node.outputs[0]) if node.op_type == "Constant" else None
    if tensor is not None:
        return tensor.dtype
    attribute = node.attributes.get("value")
    return attribute.as_tensor().dtype if attribute is not None else of(node).default
