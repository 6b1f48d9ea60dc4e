"""States of the last rows: ``present = Slice(Concat(past, new), last n)``, a window or a convolution's inputs."""

from __future__ import annotations

import onnx_ir as ir

from ..core.operators.walks import PARTS, SIZE_TAKEN
from ..symbolic.symbols import dims_of
from .base import Layout, State
from .signatures import backward_moves
from .trace import DefUsePath, constant_ints, forward

_FAR = 2**31 - 1


def last_rows(path: DefUsePath) -> list[ir.Node]:
    """The Slice nodes that keep the end of ``path``'s value along one axis."""
    return [node for node, index in path.value.uses() if index == 0 and keeps_end(node)]


def narrow(state: State, kept: ir.Node) -> State:
    """``state`` (found as append) with the layout that ``kept`` gives it: a window, a convolution's state, or delta.

    A convolution's state holds as many rows as the longest kernel that reads it: ``conv_rows``. Where the Slice
    ``kept`` begins behind the past, what leaves the graph is the new rows.
    """
    if _starts_behind(kept, state):
        state.layout = Layout.DELTA
        state.evidence += ", and only the new rows are cut out of it"
        return state
    kernel = _kernel(state)
    if kernel is None:
        state.layout = Layout.WINDOW
        state.evidence += ", and only the last rows are carried on"
    else:
        state.layout = Layout.RECURRENT
        state.kind = "conv"
        state.conv_rows = kernel
        state.evidence += f", the last rows are carried on, and a convolution of {kernel} taps reads them"
    return state


def _starts_behind(kept: ir.Node, state: State) -> bool:
    """True where the Slice ``kept`` takes the rows from the past's own length on: ``present[past:]``."""
    start, _ = backward_moves(kept.inputs[1], SIZE_TAKEN) if kept.inputs[1] is not None else (None, ())
    node = start.producer() if start is not None else None
    if state.input is None or node is None or node.op_type != "Shape" or node.inputs[0] is None:
        return False
    source, at = node.inputs[0], _dimension(kept, node)
    axis = state.axis % _rank(state.input) if state.axis is not None else None
    if at is None or axis is None:
        return False
    same = (dims_of(source) or ())[at : at + 1] == (dims_of(state.input) or ())[axis : axis + 1]
    return (at == axis and source is state.input) or (same and bool(dims_of(source)))


def _dimension(kept: ir.Node, shape: ir.Node) -> int | None:
    """Which one of the input's dimensions the start of the Slice ``kept`` is, as the input's own Shape tells it."""
    value, taken = kept.inputs[1], None
    while value is not None and (node := value.producer()) is not None and node is not shape:
        if node.op_type in _TAKES:
            taken = constant_ints(node.inputs[1])
        value = node.inputs[0]
    start = shape.attributes["start"].as_int() if "start" in shape.attributes else 0
    end = shape.attributes["end"].as_int() if "end" in shape.attributes else None
    rank = _rank(shape.inputs[0])
    dims = list(range(rank))[start:end]
    if taken is None:
        return dims[0] if len(dims) == 1 else None
    return dims[taken[0]] if len(taken) == 1 and -len(dims) <= taken[0] < len(dims) else None


def _rank(value: ir.Value | None) -> int:
    return len(value.shape) if value is not None and value.shape is not None else 0


_TAKES = PARTS - {"Split"}  # whose second operand says which part


def keeps_end(node: ir.Node) -> bool:
    """True for a Slice on one axis whose end lies behind every row and whose step is 1."""
    if node.op_type != "Slice" or node.domain or len(node.inputs) < 3:
        return False
    ends = constant_ints(node.inputs[2])
    steps = constant_ints(node.inputs[4]) if len(node.inputs) > 4 else [1]
    return ends is not None and len(ends) == 1 and ends[0] >= _FAR and steps == [1]


def _kernel(state: State) -> int | None:
    """How many rows of ``carried`` the Conv nodes that read it look back, None where none does."""
    if state.carried is None:
        return None
    spans: list[int] = []
    for path in forward(state.carried):
        for node, index in path.value.uses():
            if node.op_type == "Conv" and index == 0 and "kernel_shape" in node.attributes:
                taps = list(node.attributes["kernel_shape"].as_ints())[-1]
                dilations = node.attributes["dilations"].as_ints() if "dilations" in node.attributes else [1]
                spans.append((taps - 1) * dilations[-1] + 1)
    return max(spans, default=None)
