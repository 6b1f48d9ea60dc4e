"""A fused sum and norm is taken apart, so that the hidden states, which the operator hides, become a value."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from ...core.dataflow import Point
from ...core.operators import OPERATORS, SkipNorm
from ..builder import Builder

NORMS: dict[str, SkipNorm] = {name: row.skip_norm for (_, name), row in OPERATORS.items() if row.skip_norm is not None}
"""What each operator that sums and normalizes is made of."""
EPSILON = 1e-12  # default of those (ContribOperators.md, onnxruntime 1.32); LayerNormalization-17 has 1e-5


def open_norm(graph: ir.Graph, point: Point, owner: str) -> ir.Value:
    """The value that holds the hidden states at a point of the trunk; a fused norm is replaced by sum and norm.

    The sum keeps the name that the operator gave it, the norm its own; the sum is the same to the last bit.
    """
    if isinstance(point, ir.Value):
        return point
    norm, weights, bias, sum_at = NORMS[point.op_type]
    builder = Builder(graph, owner)
    dtype = point.outputs[0].dtype or ir.DataType.FLOAT
    parts = [value for value in (*point.inputs[:2], *point.inputs[bias : bias + 1]) if value is not None]
    # three parts in one operator, as no run of the whole graph ever shows what two of them sum up to
    total = builder.op("Add" if len(parts) == 2 else "Sum", parts, f"{point.name}/sum", dtype=dtype)
    epsilon = point.attributes.get("epsilon")
    attributes: dict[str, object] = {"axis": -1, "epsilon": EPSILON if epsilon is None else epsilon.as_float()}
    operands = [total, *(point.inputs[port] for port in weights if port < len(point.inputs))]
    normed = builder.op(norm, operands, f"{point.name}/norm", attributes, dtype=dtype)
    builder.place_before(point)
    for old, new in ((point.outputs[0], normed), *((value, total) for value in point.outputs[sum_at : sum_at + 1])):
        if old.name:
            _replace(old, new)
    graph.remove(point)
    return total


def ask_for(node: ir.Node, port: int, name: str) -> ir.Value:
    """Gives an output that the node leaves out its name; further ones before it stay left out."""
    known = len(node.outputs)
    node.resize_outputs(max(known, port + 1))
    for value in node.outputs[known:]:
        value.name = ""  # left out, as in the file
    node.outputs[port].name = name
    return node.outputs[port]


def _replace(old: ir.Value, new: ir.Value) -> None:
    name, new.shape = old.name, old.shape
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    old.name, new.name = None, name


def open_named(graph: ir.Graph, names: Iterable[str], owner: str) -> list[str]:
    """Opens the fused norms whose sums are wanted by name where no output of theirs has it; the operators' names."""
    wanted = set(names) - {value.name for node in graph for value in node.outputs}
    found = [node for node in graph if node.op_type in NORMS and f"{owner}/{node.name}/sum" in wanted]
    for node in found:
        open_norm(graph, node, owner)
    return [node.name or "" for node in found]
