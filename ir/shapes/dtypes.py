"""Element types of values without a declared one are inferred from what produces them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from ..core.operators import of

MAX_STEPS = 64


def dtype_of(value: ir.Value) -> ir.DataType | None:
    """The element type: declared, of the constant, or followed back through the producers; None where unknown."""
    for _ in range(MAX_STEPS):
        found = value.dtype if value.const_value is None else value.const_value.dtype
        node = value.producer()
        if found is not None or node is None or node.domain:
            return found
        rule = of(node).dtype
        if isinstance(rule, ir.DataType):
            return rule
        source = _source(node, rule)
        if source is None:
            return _stated(node)
        value = source
    return None


def _source(node: ir.Node, rule: int | None) -> ir.Value | None:
    """The operand that has the result's element type; none where the node states another (QuantizeLinear-21)."""
    if rule is None or isinstance(rule, ir.DataType) or rule >= len(node.inputs) or "output_dtype" in node.attributes:
        return None
    return node.inputs[rule]


def _stated(node: ir.Node) -> ir.DataType | None:
    """The type that an attribute states."""
    attributes = node.attributes.data
    tensor, to = attributes.get("value"), attributes.get("to")
    if node.op_type == "Cast" and to is not None and to.value is not None:
        return ir.DataType(to.value)
    row = of(node)
    if not row.by_value:
        return None
    return tensor.value.dtype if tensor is not None and tensor.value is not None else row.default


def dtypes_of(nodes: Iterable[ir.Node]) -> dict[ir.Value, ir.DataType]:
    """The element types of all values that ``nodes`` (in topological order) compute, as far as the tables tell."""
    known: dict[ir.Value, ir.DataType] = {}
    for node in nodes:
        rule = of(node).dtype
        fixed = rule if isinstance(rule, ir.DataType) else None
        source = _source(node, rule)
        for index, value in enumerate(node.outputs):
            found = value.dtype
            if found is None and not node.domain and (index == 0 or node.op_type == "Split"):
                found = fixed or (_of(source, known) if source is not None else _stated(node))
            if found is not None:
                known[value] = found
    return known


def _of(value: ir.Value, known: Mapping[ir.Value, ir.DataType]) -> ir.DataType | None:
    return value.const_value.dtype if value.const_value is not None else known.get(value, value.dtype)
