"""States that grow are found here: ``present = Concat(past, new)``, through any chain of layout nodes, on any axis."""

from __future__ import annotations

import onnx_ir as ir

from .base import Layout, State
from .trace import DefUsePath, backward


def match(path: DefUsePath, node: ir.Node, index: int) -> State | None:
    """The state whose past is operand ``index`` of the Concat ``node``, or None; its output is not looked for here."""
    if node.op_type != "Concat" or node.domain or len(node.inputs) < 2:
        return None
    if index > 0 and _is_input(node.inputs[0]):
        return None  # the past comes first; rows that enter the graph as they are are what is appended
    new = [value for i, value in enumerate(node.inputs) if i != index]
    if any(value is None or value is path.value for value in new):
        return None
    return State(
        layout=Layout.APPEND,
        axis=path.axis_at_start(node.attributes["axis"].as_int()),
        chain=path.chain,
        update=node,
        new=new[0] if len(new) == 1 else None,
        carried=node.outputs[0],
        evidence=f"Concat {node.name or node.outputs[0].name!r} appends to it",
    )


def _is_input(value: ir.Value | None) -> bool:
    return value is not None and backward(value)[0].is_graph_input()
