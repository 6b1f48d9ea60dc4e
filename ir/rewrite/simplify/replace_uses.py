"""All uses of a value are replaced, graph outputs included: those keep their names, their nodes may change."""

from __future__ import annotations

import onnx_ir as ir

from ..ownership import mark
from .scope import OWNER, Round


def stand_in(state: Round, node: ir.Node, same: ir.Value) -> bool:
    """``same`` takes the place of the node's first output; False where nothing changes.

    Where that is a graph output, an inner value takes over its name; anything else reaches it through an Identity.
    """
    value = node.outputs[0]
    if not value.is_graph_output():
        state.moved[value] = same
        return True
    if _renamable(state, node, same):
        state.names[same] = value
        state.moved[value] = same
        return True
    if (node.op_type == "Identity" and not node.domain) or len(node.outputs) > 1:
        return False
    state.inputs[node] = [same]
    state.turned.add(node)
    return True


def _renamable(state: Round, node: ir.Node, same: ir.Value) -> bool:
    """True for an inner value of the same graph that is no output itself."""
    producer = same.producer()
    if producer is None or producer.graph is not node.graph:
        return False
    return not same.is_graph_output() and same not in state.names


def turn(node: ir.Node) -> None:
    """Makes a node an Identity of its only input, under its own name."""
    node.domain, node.op_type, node.overload = "", "Identity", ""
    node.attributes.clear()
    mark(node, OWNER)
