"""Which output of a decoder holds its logits, where hidden states leave beside them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ..states import State


def logits_output(model: ir.Model, states: Sequence[State]) -> ir.Value | None:
    """The first output that is no state; of several ``[batch, rows, width]`` the widest, for a vocabulary is.

    Token ids that are chosen in the graph come first and are no floats: they stand for the logits then.
    """
    carried = {id(state.output) for state in states}
    free = [value for value in model.graph.outputs if id(value) not in carried]
    if not free or (free[0].dtype is not None and free[0].dtype.is_integer()):
        return free[0] if free else None
    rows = [value for value in free if _width(value)]
    ends = [value for value in rows if not _goes_on(value)]
    return max(ends or rows, key=_width, default=free[0])


def _goes_on(value: ir.Value) -> bool:
    """Whether the graph computes with it: hidden rows of a layer, which the next one takes."""
    node = value.producer()
    copied = node.inputs[0] if node is not None and node.op_type == "Identity" else None
    return bool(value.uses()) or (copied is not None and len(copied.uses()) > 1)


def _width(value: ir.Value) -> int:
    """The last of three dimensions, 0 where it is no number."""
    last = value.shape[-1] if value.shape is not None and len(value.shape) == 3 else 0
    return last if isinstance(last, int) else 0
