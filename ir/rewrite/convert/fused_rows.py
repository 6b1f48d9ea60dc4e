"""The rows that a run adds to a cache inside a fused operator are taken out of the cache that it hands out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ...core.operators import where
from ...states import State
from ...states.ports import GROWING_AXIS
from ...symbolic.symbols import dims_of
from ..builder import Builder
from .to_delta import hand_out

END = (1 << 63) - 1
GROWN = frozenset(where(lambda row: row.appends))
"""Operators whose present is the past with the new rows behind it."""
IN_BUFFER = ("past_present_share_buffer", 8)
"""The attribute of those, and the input of MultiHeadAttention, that make the past a buffer written in place."""
RING = "sliding_window_cache"
"""The attribute that makes a cache a ring, whose new rows lie where the oldest were."""
COUNTED = {key: row.ends_at for key, row in where(lambda row: row.ends_at).items() if row.ends_at is not None}
"""Operators that put the new rows where an input says that the tokens end: the last token's number, row by row."""


def hand_out_fused_rows(graph: ir.Graph, builder: Builder, state: State, length: int) -> bool:
    """Makes the ``length`` new rows of a run the state's output; False where it is not known where they lie.

    The present is ``[B, H, rows, size]`` (or has a first axis of two more); the new rows keep their order.
    """
    node, whole = state.update, state.carried
    dims = list(dims_of(whole) or dims_of(state.output) or ()) if whole is not None and state.output is not None else []
    if node is None or whole is None or whole is not state.output or not dims or not _static(dims):
        return False
    key = (node.domain, node.op_type)
    axis = GROWING_AXIS.get(key, 2)
    dims[axis] = length
    if key in GROWN and not _in_buffer(node):
        rows = _last(builder, state, whole, length, axis)
    elif key in COUNTED and node.inputs[COUNTED[key]] is not None and not _is_on(node, RING):
        rows = _counted(builder, state, whole, node.inputs[COUNTED[key]], [int(str(dim)) for dim in dims])
    else:
        return False
    hand_out(graph, builder, state, rows, dims)
    return True


def _static(dims: Sequence[object]) -> bool:
    return all(isinstance(dim, int) for dim in dims)


def _in_buffer(node: ir.Node) -> bool:
    attribute, port = IN_BUFFER
    counted = node.op_type == "MultiHeadAttention" and len(node.inputs) > port and node.inputs[port] is not None
    return _is_on(node, attribute) or counted


def _is_on(node: ir.Node, name: str) -> bool:
    attribute = node.attributes.get(name)
    return attribute is not None and attribute.as_int() == 1


def _last(builder: Builder, state: State, whole: ir.Value, length: int, axis: int) -> ir.Value:
    operands = [builder.ints([number], str(number)) for number in (-length, END, axis)]
    return builder.op("Slice", [whole, *operands], f"{state.name}/rows", dtype=whole.dtype or ir.DataType.FLOAT)


def _counted(builder: Builder, state: State, whole: ir.Value, last: ir.Value | None, dims: list[int]) -> ir.Value:
    """Rows ``max(last + 1 - length, 0)`` and those after it, as many as there are tokens."""
    batch, heads, length, size = dims
    number = builder.op("Cast", [last], "last", {"to": int(ir.DataType.INT64)})
    column = builder.op("Reshape", [number, builder.ints([batch, 1, 1, 1], "column")], "last/column")
    start = builder.op("Add", [column, builder.ints([1 - length], "back")], "start")
    first = builder.op("Max", [start, builder.ints([0], "0")], "first")
    count = builder.constant(ir.Tensor(np.arange(length, dtype=np.int64).reshape(1, 1, length, 1)), "count")
    shape = builder.ints([batch, heads, length, size], f"{state.name}/shape")
    rows = builder.op("Expand", [builder.op("Add", [first, count], "rows"), shape], f"{state.name}/index")
    dtype = whole.dtype or ir.DataType.FLOAT
    return builder.op("GatherElements", [whole, rows], f"{state.name}/rows", {"axis": 2}, dtype=dtype)
