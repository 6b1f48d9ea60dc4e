"""Scaled dot-product attention is spelled in primitive operators, with everything that fused kernels add to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_ir as ir

from .emitter import BOOL, Emitter


@dataclass(frozen=True)
class Scores:
    """What is done to the scores ``[B, H, S, T]`` before the softmax, in this order.

    Attributes:
        scale: A factor of the queries.
        softcap: Scores become ``softcap · tanh(scores / softcap)``; 0 for none.
        bias: Added, broadcast to the scores.
        visible: BOOL, broadcast to the scores: where False, the key has no weight.
        sinks: One more score a head ``[H]`` that takes weight and has no value.
        smooth: A sink of 0 for every head.
        guard: A query that sees no key gets weights of 0, not the mean of what is hidden.
        precision: The element type of the softmax, where it is not that of the scores.
    """

    scale: float
    softcap: float = 0.0
    bias: ir.Value | None = None
    visible: ir.Value | None = None
    sinks: ir.Value | None = None
    smooth: bool = False
    guard: bool = False
    precision: ir.DataType | None = None


@dataclass(frozen=True)
class Heads:
    """How many heads queries and keys have; each head of the keys serves ``query / key`` heads in turn."""

    query: int
    key: int


@dataclass(frozen=True)
class Attended:
    """The result ``[B, H, S, D]``, and the scores ``[B, H, S, T]`` on the way to it."""

    output: ir.Value
    raw: ir.Value
    capped: ir.Value
    masked: ir.Value
    weights: ir.Value


def split_heads(e: Emitter, x: ir.Value, heads: int, size: int | None = None) -> ir.Value:
    """``[B, S, H·D]`` to ``[B, H, S, D]``."""
    return e("Transpose", e("Reshape", x, [0, 0, heads, size or -1]), perm=[0, 2, 1, 3])


def merge_heads(e: Emitter, x: ir.Value, width: int | None = None) -> ir.Value:
    """``[B, H, S, D]`` to ``[B, S, H·D]``."""
    return e("Reshape", e("Transpose", x, perm=[0, 2, 1, 3]), [0, 0, width or -1])


def attend(e: Emitter, query: ir.Value, key: ir.Value, value: ir.Value, heads: Heads, scores: Scores) -> Attended:
    """Attention of ``query`` ``[B, H, S, D]`` over ``key`` and ``value`` ``[B, KV, T, D]``.

    Grouped heads are folded into the rows of the query, so that no key or value is repeated.
    """
    scaled = query if scores.scale == 1.0 else e("Mul", query, scores.scale)
    product = e("MatMul", _folded(e, scaled, heads), e("Transpose", key, perm=[0, 1, 3, 2]))
    raw = _unfolded(e, product, heads)
    capped = raw
    if scores.softcap:
        capped = e("Mul", e("Tanh", e("Div", raw, scores.softcap)), scores.softcap)
    masked = capped if scores.bias is None else e("Add", capped, scores.bias)
    if scores.visible is not None:
        masked = e("Where", scores.visible, masked, lowest(e.dtype(masked)), dtype=e.dtype(masked))
    weights = _softmax(e, masked, heads, scores)
    if scores.guard:
        weights = _guarded(e, masked, weights, scores)
    output = _unfolded(e, e("MatMul", _folded(e, weights, heads), value), heads)
    return Attended(output, raw, capped, masked, weights)


def lowest(dtype: ir.DataType) -> float:
    """The most negative finite number: a query that sees nothing stays free of NaN."""
    return float(ml_dtypes.finfo(dtype.numpy()).min)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def _folded(e: Emitter, x: ir.Value, heads: Heads) -> ir.Value:
    """``[B, H, S, N]`` to ``[B, KV, H/KV · S, N]``."""
    return x if heads.query == heads.key else e("Reshape", x, [0, heads.key, -1, 0])


def _unfolded(e: Emitter, x: ir.Value, heads: Heads) -> ir.Value:
    return x if heads.query == heads.key else e("Reshape", x, [0, heads.query, -1, 0])


def _softmax(e: Emitter, masked: ir.Value, heads: Heads, scores: Scores) -> ir.Value:
    """The weights; a sink is one more column of scores that is dropped behind the softmax."""
    if scores.sinks is None and not scores.smooth:
        dtype = e.dtype(masked)
        return e.as_type(e("Softmax", e.as_type(masked, scores.precision or dtype), axis=-1), dtype)
    sinks = scores.sinks if scores.sinks is not None else e.array(np.zeros(heads.query), e.dtype(masked))
    column = e("Reshape", e.as_type(sinks, e.dtype(masked)), [1, heads.query, 1, 1])
    rows = e("Concat", e.sizes(masked, 0, 1, 2), [1], axis=0)
    wide = e("Softmax", e("Concat", masked, e("Expand", column, rows), axis=-1), axis=-1)
    return e("Slice", wide, [0], [-1], [3], [1])


def _guarded(e: Emitter, masked: ir.Value, weights: ir.Value, scores: Scores) -> ir.Value:
    """Weights of 0 where no key is visible: onnxruntime does so since 1.28, the operator's text since opset 25."""
    dtype = e.dtype(weights)
    zero = e.array(0.0, dtype)
    if scores.bias is not None:
        dead = e("Equal", e.reduce("ReduceMax", masked), e.array(-np.inf, e.dtype(masked)), dtype=BOOL)
        weights = e("Where", dead, zero, weights, dtype=dtype)
    return weights if scores.visible is None else e("Where", scores.visible, weights, zero, dtype=dtype)


def causal_rows(
    e: Emitter, queries: ir.Value, keys: ir.Value, window: int = -1, mask: ir.Value | None = None
) -> ir.Value:
    """BOOL ``[B or 1, 1, S, T]``: the key is not behind the query, in its window of ``window`` rows, and no padding.

    ``queries`` ``[B or 1, S]`` and ``keys`` ``[T]`` are row numbers; ``mask`` ``[B, T]`` is 0 for padding.
    """
    line = e.spread(queries, 1, 3)
    row = e.spread(keys, 0, 1, 2)
    visible = e("LessOrEqual", row, line, dtype=BOOL)
    if window > 0:
        visible = e("And", visible, e("Greater", row, e("Sub", line, window), dtype=BOOL), dtype=BOOL)
    return visible if mask is None else e("And", visible, key_columns(e, mask), dtype=BOOL)


def key_columns(e: Emitter, mask: ir.Value) -> ir.Value:
    """A padding mask ``[B, T]`` as BOOL ``[B, 1, 1, T]``."""
    return e.spread(e.as_type(mask, BOOL), 1, 2)


def default_scale(size: int) -> float:
    """``1 / sqrt(head size)``, what every attention operator takes where no scale is given."""
    return 1.0 / math.sqrt(size)
