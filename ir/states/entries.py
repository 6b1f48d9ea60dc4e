"""What a past goes through before its update that is more than layout: lines chosen for a beam, old rows cut off."""

from __future__ import annotations

import onnx_ir as ir

from .base import Layout, State
from .signatures import strip_shape_ops
from .trace import DefUsePath, constant_ints
from .window import keeps_end


def entry_axis(node: ir.Node, path: DefUsePath) -> int | None:
    """The past's axis on which ``node`` chooses lines or keeps the last rows; None where it does neither."""
    at = _axis_of(node)
    return path.axis_at_start(at) if at is not None else None


def apply_entries(state: State, path: DefUsePath) -> State | None:
    """``state`` with what its past went through; None where that is not understood together with the update.

    Lines are chosen on another axis than the update's. Rows are cut on the axis that grows: the state is a window,
    also where the whole of what is left leaves the graph.
    """
    for node, axis in path.entries:
        index = reordered_by(node)
        if index is not None and axis != _positive(state.axis, state.input):
            state.reorder = index
            state.evidence += f", the lines of the batch chosen by {index.name!r}"
        elif index is None and state.layout is Layout.APPEND and _grows_on(state, axis):
            state.layout = Layout.WINDOW
            state.evidence += ", after all but its last rows were cut off"
        else:
            return None
    return state


def reordered_by(node: ir.Node) -> ir.Value | None:
    """The input that chooses the lines of a batch which ``node`` gathers (``beam_idx``), or None.

    A beam search takes the cache of each hypothesis's predecessor: ``index_select(past, 0, beam_idx)``.
    """
    if node.op_type != "Gather" or node.domain or node.inputs[1] is None:
        return None
    index, _ = strip_shape_ops(node.inputs[1])
    ranks = [len(value.shape) for value in (index, node.inputs[1]) if value.shape is not None]
    is_index = index.is_graph_input() and index.dtype is not None and index.dtype.is_integer()
    return index if is_index and ranks and set(ranks) == {1} else None


def _axis_of(node: ir.Node) -> int | None:
    """The axis of the operand on which ``node`` chooses lines, or keeps a fixed number of last rows."""
    if reordered_by(node) is not None:
        return node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    if not keeps_end(node):
        return None
    starts, axes = constant_ints(node.inputs[1]), constant_ints(node.inputs[3]) if len(node.inputs) > 3 else [0]
    return axes[0] if starts is not None and starts[0] < 0 and axes is not None and len(axes) == 1 else None


def _grows_on(state: State, axis: int) -> bool:
    """True for the axis that grows, of a length that the input's type leaves open."""
    return axis == _positive(state.axis, state.input) and not isinstance(state.length, int)


def _positive(axis: int | None, value: ir.Value | None) -> int | None:
    rank = len(value.shape) if value is not None and value.shape is not None else 0
    return axis + rank if axis is not None and axis < 0 else axis
