"""ai.onnx Attention (23 to 25) and TensorScatter are spelled out, with every optional port and mode."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...symbolic.dims import Dim
from .attention import Attended, Heads, Scores, attend, default_scale, merge_heads, split_heads
from .emitter import BOOL, INT64, Emitter, Unfit
from .ports import Ports

MASK, PAST_KEY, PAST_VALUE, VALID = 3, 4, 5, 6
RAW, CAPPED, MASKED, WEIGHTS = range(4)
"""What ``qk_matmul_output_mode`` asks for."""


def attention(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """Attention of opset 25's text, of which 24 and 23 are parts: Y, present key and value, scores as asked."""
    ports = Ports(node)
    query, key, value = (ports.need(i, name) for i, name in enumerate("QKV"))
    flat, total = e.rank(query) == 3, _total(e, key, ports.input(PAST_KEY))
    if flat:
        heads = Heads(ports.int("q_num_heads"), ports.int("kv_num_heads"))
        size = e.width(query, -1, "the hidden size") // heads.query
        query, key, value = (
            split_heads(e, x, count) for x, count in ((query, heads.query), (key, heads.key), (value, heads.key))
        )
    else:
        heads = Heads(e.width(query, 1, "the number of heads"), e.width(key, 1, "the number of key heads"))
        size = e.width(query, -1, "the head size")
    past_key, past_value = ports.input(PAST_KEY), ports.input(PAST_VALUE)
    key = key if past_key is None else e("Concat", past_key, key, axis=2)
    value = value if past_value is None else e("Concat", past_value, value, axis=2)
    precision = ports.int("softmax_precision")
    visible, bias = _masks(e, ports, query, key, total)
    scores = Scores(
        scale=ports.float("scale") or default_scale(size),
        softcap=ports.float("softcap"),
        bias=bias,
        visible=visible,
        guard=not _sees_always(ports),
        precision=ir.DataType(precision) if precision else None,
    )
    found = attend(e, query, key, value, heads, scores)
    output = merge_heads(e, found.output) if flat else found.output
    return [output, key, value, _asked(e, ports, found, scores) if ports.wanted(3) else None]


def _sees_always(ports: Ports) -> bool:
    """True where every query sees its own row: nothing but a triangle or a window behind it hides keys."""
    window = ports.int("right_window_size", -1)
    return ports.input(MASK) is None and ports.input(VALID) is None and window <= 0


def _masks(
    e: Emitter, ports: Ports, query: ir.Value, keys: ir.Value, total: Dim | None
) -> tuple[ir.Value | None, ir.Value | None]:
    """The boolean masks as one, and what is added."""
    shown: list[ir.Value] = []
    bias: ir.Value | None = None
    mask, valid = ports.input(MASK), ports.input(VALID)
    if mask is not None:
        if e.dtype(mask) == BOOL:
            shown.append(_padded(e, mask, keys, total))
        else:
            added = e.as_type(mask, e.dtype(query))
            bias = _padded(e, added, keys, total)
    shown += _lines(e, ports, query, keys, valid)
    visible: ir.Value | None = None
    for one in shown:
        visible = one if visible is None else e("And", visible, one, dtype=BOOL)
    return visible, bias


def _lines(e: Emitter, ports: Ports, query: ir.Value, keys: ir.Value, valid: ir.Value | None) -> list[ir.Value]:
    """The triangle, the window and the length, each BOOL and broadcast to ``[B, 1, S, T]``."""
    left, right, causal = ports.int("left_window_size", -1), ports.int("right_window_size", -1), ports.int("is_causal")
    if left < 0 and right < 0 and not causal and valid is None:
        return []
    past = ports.input(PAST_KEY)
    row = e.spread(e.range(0, e.size(keys, 2)), 0, 1, 2)
    count = e.size(query, 2)
    found: list[ir.Value] = []
    if valid is not None:
        ends = e("Reshape", e.as_type(valid, INT64), [-1, 1, 1, 1])
        found.append(e("Less", row, ends, dtype=BOOL))
        line = e("Add", e("Sub", ends, count), e.spread(e.range(0, count), 0, 1, 3))
    elif past is not None:
        start = e.size(past, 2)
        line = e.spread(e.range(start, e("Add", start, count)), 0, 1, 3)
    else:
        line = e.spread(e.range(0, count), 0, 1, 3)
    if causal:
        found.append(e("LessOrEqual", row, line, dtype=BOOL))
    if left >= 0:
        found.append(e("GreaterOrEqual", row, e("Sub", line, left), dtype=BOOL))
    if right >= 0 and not (causal and right >= 0):
        found.append(e("LessOrEqual", row, e("Add", line, right), dtype=BOOL))
    return found


def _padded(e: Emitter, mask: ir.Value, keys: ir.Value, total: Dim | None) -> ir.Value:
    """``mask`` with as many columns as there are keys; shorter ones hide the rest, one column too (since 24)."""
    shape = e.known(mask)
    rank = e.rank(mask)
    spread = e.opset < 24 and shape is not None and shape[-1] == 1
    if spread or (shape is not None and total is not None and shape[-1] == total):
        return mask
    missing = e("Sub", e.sizes(keys, 2), e.sizes(mask, rank - 1))
    pads = e("Concat", e.array(np.zeros(2 * rank - 1), INT64), missing, axis=0)
    if e.dtype(mask) != BOOL:
        return e("Pad", mask, pads, e.array(-np.inf, e.dtype(mask)), mode="constant")
    wide = e("Pad", e.as_type(mask, ir.DataType.INT32), pads, e.array(0, ir.DataType.INT32), mode="constant")
    return e.as_type(wide, BOOL)


def _total(e: Emitter, key: ir.Value, past: ir.Value | None) -> Dim | None:
    """The number of keys after the run, as far as types tell."""
    own, before = e.known(key), e.known(past) if past is not None else (0, 0, 0, 0)
    if own is None or before is None:
        return None
    return own[1 if len(own) == 3 else 2] + before[2]


def _asked(e: Emitter, ports: Ports, found: Attended, scores: Scores) -> ir.Value:
    mode = ports.int("qk_matmul_output_mode")
    if mode == MASKED and scores.visible is not None:
        hidden = e.array(-np.inf, e.dtype(found.capped))
        added = found.capped if scores.bias is None else e("Add", found.capped, scores.bias)
        return e("Where", scores.visible, added, hidden, dtype=e.dtype(found.capped))
    return {RAW: found.raw, CAPPED: found.capped, MASKED: found.masked, WEIGHTS: found.weights}[mode]


def tensor_scatter(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """TensorScatter (24): rows written from an index of each sequence on, round the end where it is circular."""
    ports = Ports(node)
    cache, update, start = ports.need(0, "past_cache"), ports.need(1, "update"), ports.input(2)
    rank = e.rank(cache)
    axis = ports.int("axis", -2) % rank
    count = e.spread(e.range(0, e.size(update, axis)), 0)
    rows = count if start is None else e("Add", e.spread(e.as_type(start, INT64), 1), count)
    mode = ports.text("mode", "linear")
    if mode == "circular":
        rows = e("Mod", rows, e.size(cache, axis))
    elif mode != "linear":
        raise Unfit(f"its mode is {mode}")
    return [e("ScatterND", cache, row_indices(e, update, rows, axis), update)]


def row_indices(e: Emitter, update: ir.Value, rows: ir.Value, axis: int) -> ir.Value:
    """Where ``rows`` ``[B or 1, S]`` of ``axis`` lie: the indices of the axes before it and the row, last axis each."""

    def make() -> ir.Value:
        shape = e("Concat", e.sizes(update, *range(axis + 1)), [1], axis=0)
        parts: list[ir.Value] = []
        for at in range(axis):
            index = e.range(0, e.size(update, at))
            parts.append(e.spread(index, *(other for other in range(axis + 2) if other != at)))
        parts.append(e.spread(rows, *range(1, axis), axis + 1))
        return e("Concat", *(e("Expand", part, shape) for part in parts), axis=axis + 1)

    return e.share(("row indices", id(rows), axis, str(update.shape)), make)
