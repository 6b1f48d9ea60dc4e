"""Where a run's tokens lie among the rows of a cache: behind what is there, or written in place at positions."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...core.constants import constant_of
from ...core.operators.walks import IN_ORDER, SAME_PLACE
from ...states.trace import axes_of
from .emitter import INT64, Emitter, Layout

MAX_STEPS = 16


@dataclass(frozen=True)
class Rows:
    """The rows of one cache.

    Attributes:
        queries: The row of each token of the run, int64 ``[B or 1, S]``; also its position.
        keys: The numbers of all rows, int64 ``[T]``.
        mask: ``[B, T]``, 0 for padding; None where no input tells.
        ends: Gives the rows in use after the run ``[B]``.
        layout: How new rows enter.
        length: Rows of the cache after the run (a scalar), where it is a buffer.
        key: What other layers compare to find the same rows.
    """

    queries: ir.Value
    keys: ir.Value
    mask: ir.Value | None
    ends: Callable[[], ir.Value]
    layout: Layout
    length: ir.Value | None
    key: Hashable


def appended_rows(e: Emitter, past: ir.Value | None, query: ir.Value, last: ir.Value) -> Rows:
    """New rows stand behind the past's; the mask is the input that ``last`` (a row's last token) was summed from.

    onnxruntime's kernel takes a row's length from ``last`` and writes over padding that stands between; a cache that
    grows appends, so rows of one batch must be equally long where a past is there (recorded).
    """
    mask = summed_mask(last)
    if mask is not None:
        e.right_padded[mask.name or ""] = None
    name = str(past.shape[2]) if past is not None and past.shape is not None else ""
    key = ("appended", name if name != "None" else id(past), id(mask))

    def ends() -> ir.Value:
        return e.share(("ends", id(last)), lambda: e("Add", e("Reshape", e.as_type(last, INT64), [-1]), 1))

    new = e.share(("rows of", id(last)), lambda: e.size(query, 1))
    if past is None:
        queries = e.share((key, "queries"), lambda: e.spread(e.range(0, new), 0))
        return Rows(queries, e.share((key, "keys"), lambda: e.range(0, new)), mask, ends, Layout.APPEND, None, key)
    start = e.share((key, "start"), lambda: e.size(past, 2))
    total = e.share((key, "total"), lambda: e("Add", start, new))
    queries = e.share((key, "queries"), lambda: e.spread(e.range(start, total), 0))
    keys = e.share((key, "keys"), lambda: e.range(0, total))
    return Rows(queries, keys, mask, ends, Layout.APPEND, None, key)


def buffer_rows(
    e: Emitter, past: ir.Value, query: ir.Value, last: ir.Value, total: ir.Value, valid: ir.Value | None
) -> Rows:
    """New rows are written into the past's buffer at the row's own length; a first prompt begins at row 0."""
    key = ("buffer", id(last), id(total), id(valid), str(past.shape))
    new = e.share((key, "new"), lambda: e.size(query, 1))
    ends = e.share((key, "ends"), lambda: e("Add", e("Reshape", e.as_type(last, INT64), [-1]), 1))
    starts = e.share((key, "starts"), lambda: _starts(e, ends, new, total, valid))
    count = e.share((key, "count"), lambda: e.spread(e.range(0, new), 0))
    queries = e.share((key, "queries"), lambda: e("Add", e.spread(starts, 1), count))
    size = e.share((key, "size"), lambda: e("Max", e.size(past, 2), e("Reshape", e.as_type(total, INT64), [])))
    keys = e.share((key, "keys"), lambda: e.range(0, size))
    return Rows(queries, keys, None, lambda: ends, Layout.SCATTER, size, key)


def _starts(e: Emitter, ends: ir.Value, new: ir.Value, total: ir.Value, valid: ir.Value | None) -> ir.Value:
    """The row of each sequence's first new token ``[B]``."""
    if valid is not None:
        return e("Sub", ends, e("Reshape", e.as_type(valid, INT64), [-1]))
    first = e("Equal", e("Reshape", e.as_type(total, INT64), [1]), e("Reshape", new, [1]), dtype=ir.DataType.BOOL)
    return e("Where", first, e.array(np.zeros(1), INT64), e("Sub", ends, new), dtype=INT64)


def written(e: Emitter, rows: Rows, past: ir.Value | None, new: ir.Value, heads: int) -> ir.Value:
    """The cache ``[B, KV, T, D]`` with the rows ``new`` ``[B, KV, S, D]`` in it."""
    if rows.layout is Layout.APPEND:
        return new if past is None else e("Concat", past, new, axis=2)
    assert past is not None
    assert rows.length is not None
    missing = e("Sub", rows.length, e.size(past, 2))
    empty = e("Concat", e.sizes(past, 0, 1), e("Reshape", missing, [1]), e.sizes(past, 3), axis=0)
    grown = e("Concat", past, e("Expand", e.array(np.zeros((1, 1, 1, 1)), e.dtype(past)), empty), axis=2)
    return e("ScatterND", grown, _indices(e, rows, new, heads), new)


def _indices(e: Emitter, rows: Rows, new: ir.Value, heads: int) -> ir.Value:
    """Batch, head and row of each new row, int64 ``[B, KV, S, 3]``."""

    def make() -> ir.Value:
        shape = e("Concat", e.sizes(new, 0, 1, 2), [1], axis=0)
        batch = e.range(0, e.size(new, 0))
        parts = (
            e.spread(batch, 1, 2, 3),
            e.array(np.arange(heads).reshape(1, heads, 1, 1), INT64),
            e.spread(rows.queries, 1, 3),
        )
        return e("Concat", *(e("Expand", part, shape) for part in parts), axis=3)

    return e.share((rows.key, "indices", heads), make)


def summed_mask(last: ir.Value) -> ir.Value | None:
    """The attention mask ``[B, T]`` (a graph input) that ``ReduceSum(mask, 1) - 1`` counts; None where it is none."""
    value = last
    summed = False
    for _ in range(MAX_STEPS):
        node = value.producer()
        if node is None:
            return value if summed and value.is_graph_input() and len(value.shape or ()) == 2 else None
        if node.domain or node.inputs[0] is None:
            return None
        if node.op_type == "ReduceSum" and not summed and _over_columns(node):
            summed = True
        elif node.op_type == "Sub" and not summed and _is_one(node.inputs[1]):
            pass
        elif node.op_type not in (SAME_PLACE if summed else IN_ORDER):
            return None
        value = node.inputs[0]
    return None


def _over_columns(node: ir.Node) -> bool:
    return axes_of(node) in ([1], [-1])


def _is_one(value: ir.Value | None) -> bool:
    tensor = constant_of(value)
    return tensor is not None and tensor.size == 1 and int(tensor.numpy().reshape(-1)[0]) == 1
