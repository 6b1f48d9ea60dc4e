"""Rotary embeddings are spelled out: halves or interleaved pairs, partial, tables looked up or given row by row."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...states.signatures import is_whole_range, strip_shape_ops
from .attention import merge_heads, split_heads
from .emitter import INT64, Emitter, Unfit
from .ports import Ports


def rotate(e: Emitter, x: ir.Value, cos: ir.Value, sin: ir.Value, *, size: int, width: int, paired: bool) -> ir.Value:
    """Turns the first ``width`` of the ``size`` channels of ``x`` ``[B, H, S, D]``.

    ``cos`` and ``sin`` broadcast to ``[B, H, S, width / 2]``; ``paired`` turns channels 2i and 2i + 1 together, else
    i and i + width / 2.
    """
    rest: ir.Value | None = None
    if width < size:
        x, rest = e.split(x, [width, size - width], 3)
    order = np.concatenate([np.arange(0, width, 2), np.arange(1, width, 2)])
    if paired:
        x = e("Gather", x, e.array(order, INT64), axis=3)
    first, second = e.split(x, [width // 2, width // 2], 3)
    turned = [
        e("Sub", e("Mul", first, cos), e("Mul", second, sin)),
        e("Add", e("Mul", second, cos), e("Mul", first, sin)),
    ]
    if paired:
        both = e("Gather", e("Concat", *turned, axis=3), e.array(np.argsort(order), INT64), axis=3)
        return both if rest is None else e("Concat", both, rest, axis=3)
    return e("Concat", *turned, *([] if rest is None else [rest]), axis=3)


def rotary_embedding(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """com.microsoft RotaryEmbedding of ``[B, S, H·D]`` or ``[B, H, S, D]``; positions ``[B, S]`` or one offset."""
    ports = Ports(node)
    x, positions = ports.need(0, "input"), ports.need(1, "position_ids")
    cos, sin = ports.need(2, "cos_cache"), ports.need(3, "sin_cache")
    if ports.float("scale", 1.0) != 1.0:
        raise Unfit("scale is not 1, which onnxruntime's CPU kernel ignores")
    half = e.width(cos, -1, "the width of its tables")
    rank = e.rank(positions)
    if rank == 1:
        positions = offset_rows(e, positions, x, e.rank(x))
    cos, sin = (e.spread(e("Gather", table, positions, axis=0), 1) for table in (cos, sin))
    return [_turned(e, ports, x, cos, sin, half, paired=ports.int("interleaved") == 1)]


def onnx_rotary_embedding(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """ai.onnx RotaryEmbedding (23): tables ``[rows, D/2]`` with positions, or ``[B, S, D/2]`` without."""
    ports = Ports(node)
    x, cos, sin, positions = ports.need(0, "X"), ports.need(1, "cos_cache"), ports.need(2, "sin_cache"), ports.input(3)
    half = e.width(cos, -1, "the width of its tables")
    if positions is not None:
        cos, sin = (e("Gather", table, positions, axis=0) for table in (cos, sin))
    cos, sin = (e.spread(table, 1) for table in (cos, sin))
    return [_turned(e, ports, x, cos, sin, half, paired=ports.int("interleaved") == 1)]


def looked_up(e: Emitter, table: ir.Value, positions: ir.Value) -> ir.Value:
    """Rows of ``table`` at ``positions`` ``[B, S]``; the rows themselves where they are all taken in order.

    onnxscript 0.7's fusion hands GroupQueryAttention the angles of each token, padded with zeros to as many rows as the
    kernel wants, and counts them 0, 1 … B·S - 1: the padding's length speaks of the past's, its rows are never read.
    """
    rows = _counted_rows(e, table, positions)
    if rows is None:
        return e("Gather", table, positions, axis=0)
    return e("Reshape", rows, e("Concat", e("Shape", positions, dtype=INT64), [-1], axis=0))


def _counted_rows(e: Emitter, table: ir.Value, positions: ir.Value) -> ir.Value | None:
    node, counted = table.producer(), strip_shape_ops(positions)[0]
    if node is None or node.op_type != "Concat" or node.domain or e.facts is None or not is_whole_range(counted):
        return None
    first = node.inputs[0]
    shapes = [e.facts().shape(value) if value is not None else None for value in (first, counted)]
    axis = node.attributes["axis"].as_int()
    if shapes[0] is None or shapes[1] is None or axis % len(shapes[0]) or shapes[0][0] != shapes[1][0]:
        return None
    return first


def offset_rows(e: Emitter, offset: ir.Value, x: ir.Value, rank: int) -> ir.Value:
    """``offset, offset + 1 …`` ``[1, S]`` for a position given once: the first token's."""
    count = e.size(x, 1 if rank == 3 else 2)
    rows = e("Range", e.array(np.asarray(0), INT64), count, e.array(np.asarray(1), INT64))
    return e.spread(e("Add", rows, e.as_type(offset, INT64)), 0)


def _turned(
    e: Emitter, ports: Ports, x: ir.Value, cos: ir.Value, sin: ir.Value, half: int, *, paired: bool
) -> ir.Value:
    heads, flat = ports.int("num_heads"), e.rank(x) == 3
    if not flat:
        size = e.width(x, -1, "the head size")
        return rotate(e, x, cos, sin, size=size, width=2 * half, paired=paired)
    width = e.width(x, -1, "the hidden size")
    size = width // heads if heads else 2 * half
    wide = split_heads(e, x, width // size, size)
    return merge_heads(e, rotate(e, wide, cos, sin, size=size, width=2 * half, paired=paired), width)
