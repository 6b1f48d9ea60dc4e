"""States of the last rows: ``present = Slice(Concat(past, new), last n)``, a window or a convolution's inputs."""

from __future__ import annotations

import onnx_ir as ir

from .base import Layout, State
from .walk import Trail, constant_ints, forward

_FAR = 2**31 - 1


def last_rows(trail: Trail) -> list[ir.Node]:
    """The Slice nodes that keep the end of ``trail``'s value along one axis."""
    return [node for node, index in trail.value.uses() if index == 0 and keeps_end(node)]


def narrow(state: State) -> State:
    """``state`` (found as append) with the layout that its dropped rows give it: a window, or a convolution's state.

    A convolution's state holds as many rows as the longest kernel that reads it: ``extra["rows"]``.
    """
    kernel = _kernel(state)
    if kernel is None:
        state.layout = Layout.WINDOW
        state.evidence += ", and only the last rows are carried on"
    else:
        state.layout = Layout.RECURRENT
        state.kind = "conv"
        state.extra["rows"] = kernel
        state.evidence += f", the last rows are carried on, and a convolution of {kernel} taps reads them"
    return state


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
    for trail in forward(state.carried):
        for node, index in trail.value.uses():
            if node.op_type == "Conv" and index == 0 and "kernel_shape" in node.attributes:
                taps = list(node.attributes["kernel_shape"].as_ints())[-1]
                dilations = node.attributes["dilations"].as_ints() if "dilations" in node.attributes else [1]
                spans.append((taps - 1) * dilations[-1] + 1)
    return max(spans, default=None)
