"""Positions of padded tokens are clamped in front of operators that refuse them."""

from __future__ import annotations

import onnx_ir as ir

from ..core.constants import constant_of
from ..core.errors import PassRefused
from ..core.operators import of
from ..core.scopes import Scope, nested
from .builder import Builder

INTEGER_MAX = 12  # ai.onnx Max takes integers from here on


def clamp_positions(model: ir.Model, owner: str) -> int:
    """Puts Max(positions, 0) before every operator that rotates by positions; gives how many read it now.

    The operators want indices into their tables: the CPU kernels of onnxruntime 1.32 reject -1 of padded tokens.
    Raises PassRefused for an opset whose Max takes no integers.
    """
    found = [(scope, _rotating(scope)) for scope in (model.graph, *model.functions.values())]
    count = sum(len(nodes) for _, nodes in found)
    opset = model.opset_imports.get("", 0)
    if count and opset < INTEGER_MAX:
        raise PassRefused(
            "Max of integers is newer than the graph's opset",
            where="clamp-positions",
            found=f"opset {opset}",
            wanted=f"opset {INTEGER_MAX} or newer",
            hint="Convert the graph to a newer opset first.",
        )
    for scope, nodes in found:
        builder = Builder(scope, owner)
        for node, port in nodes:
            if isinstance(scope, ir.Function):
                scope.opset_imports.setdefault("", opset)
            node.replace_input_with(port, _clamped(builder, node, port))
    return count


def _rotating(scope: Scope) -> list[tuple[ir.Node, int]]:
    """The operators that rotate by positions of the run, and which operand those are."""
    nodes = ((node, of(node)) for inner in nested(scope) for node in inner)
    ports = ((node, row.rotates) for node, row in nodes if row.rotates is not None and not row.carries)
    return [(node, port) for node, port in ports if port < len(node.inputs) and _may_be_negative(node.inputs[port])]


def _may_be_negative(value: ir.Value | None) -> bool:
    """Whether nothing tells that no position is below 0: neither a constant, nor one clamped before."""
    if value is None or constant_of(value) is not None:
        return False
    maker = value.producer()
    if maker is None or maker.op_type != "Max" or maker.domain:
        return True
    bounds = (constant_of(operand) for operand in maker.inputs if operand is not None)
    return not any(bound is not None and bound.size and bound.numpy().min() >= 0 for bound in bounds)


def _clamped(builder: Builder, node: ir.Node, port: int) -> ir.Value:
    """The positions, none of them below 0: one value for all that read the same."""
    value = node.inputs[port]
    assert value is not None, "the operand was looked at"

    def make() -> ir.Value:
        zero = builder.constant(ir.tensor(0, (value.dtype or ir.DataType.INT64)), f"{value.name}/zero")
        return builder.op("Max", [value, zero], f"{value.name}/clamped", like=value)

    clamped = builder.share(("clamped", id(value)), make)
    builder.place_before(node)
    return clamped
