"""GroupQueryAttention is spelled out: packed projections, rotary embedding, windows, sinks, a cache of any kind."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .attention import Heads, Scores, attend, causal_rows, default_scale, key_columns, merge_heads, split_heads
from .emitter import BOOL, INT64, Emitter, Layout, Unfit
from .norms import rms
from .ports import Ports
from .quantized_cache import dequantized_cache, quantized_rows
from .rotary import looked_up, rotate
from .rows import Rows, appended_rows, buffer_rows, written

QUERY, KEY, VALUE, PAST_KEY, PAST_VALUE, LAST, TOTAL, COS, SIN, POSITIONS, BIAS, SINK = range(12)
K_SCALE, V_SCALE, Q_NORM, K_NORM, VALID = range(12, 17)
"""Inputs, as onnxruntime 1.32's schema numbers them; ``LAST`` is seqlens_k, a row's last token's number."""
CACHES = ((PAST_KEY, K_SCALE, "k_quant_type"), (PAST_VALUE, V_SCALE, "v_quant_type"))


def group_query_attention(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """The operator's outputs: attention ``[B, S, H·D]``, present keys and values ``[B, KV, T, D]``."""
    ports = Ports(node)
    if ports.wanted(3):
        raise Unfit("its scores (output 3) are used")
    heads = Heads(ports.int("num_heads"), ports.int("kv_num_heads"))
    query, key, value, size = _projections(e, ports, heads)
    query, key = _normed(e, ports, query, key)
    rows = _rows(e, ports)
    if ports.int("do_rotary"):
        query, key = _rotated(e, ports, rows, query, key, size)
    new = (key, value)
    presents = [_present(e, ports, rows, x, cache, size) for x, cache in zip(new, CACHES, strict=True)]
    keys, values = (_read(e, ports, x, cache) for x, cache in zip(presents, CACHES, strict=True))
    output = attend(e, query, keys, values, heads, _scores(e, ports, rows, size)).output
    return [merge_heads(e, output, heads.query * size), *presents]


def _projections(e: Emitter, ports: Ports, heads: Heads) -> tuple[ir.Value, ir.Value, ir.Value, int]:
    """Queries, keys and values ``[B, H, S, D]``, cut out of one tensor where they come packed."""
    query, key, value = ports.need(QUERY, "query"), ports.input(KEY), ports.input(VALUE)
    if key is not None and value is not None:
        size = e.width(query, -1, "the hidden size") // heads.query
        wide = split_heads(e, query, heads.query, size)
        return wide, split_heads(e, key, heads.key, size), split_heads(e, value, heads.key, size), size
    size = e.width(query, -1, "the width of the packed projection") // (heads.query + 2 * heads.key)
    parts = e.split(query, [heads.query * size, heads.key * size, heads.key * size], 2)
    counts = (heads.query, heads.key, heads.key)
    wide, keys, values = (split_heads(e, part, count, size) for part, count in zip(parts, counts, strict=True))
    return wide, keys, values, size


def _normed(e: Emitter, ports: Ports, query: ir.Value, key: ir.Value) -> tuple[ir.Value, ir.Value]:
    """An RMS norm over each head before the rotary embedding, where weights for it are given."""
    common = ports.float("qk_norm_epsilon", 1e-6)
    for index, name in ((Q_NORM, "q_norm_epsilon"), (K_NORM, "k_norm_epsilon")):
        weight = ports.input(index)
        if weight is not None:
            epsilon = ports.float(name, common)
            query, key = (
                (rms(e, query, weight, epsilon), key) if index == Q_NORM else (query, rms(e, key, weight, epsilon))
            )
    return query, key


def _rows(e: Emitter, ports: Ports) -> Rows:
    """Where the run's tokens lie in the cache, and which rows there are."""
    past, query = ports.input(PAST_KEY), ports.need(QUERY, "query")
    last, total = ports.need(LAST, "seqlens_k"), ports.need(TOTAL, "total_sequence_length")
    if e.layout_of(ports.node, past, 1) is Layout.SCATTER:
        assert past is not None
        if ports.int("sliding_window_cache"):
            raise Unfit("its cache is a window that moves, which has no form written in place; take layout=append")
        return buffer_rows(e, past, query, last, total, ports.input(VALID))
    if ports.input(VALID) is not None:
        raise Unfit("query_seqlens pads its new rows, which a growing cache cannot leave out; take layout=scatter")
    if past is not None and ports.int("sliding_window_cache"):
        for output in ports.node.outputs[1:3]:
            e.whole_pasts[output.name or ""] = None
    return appended_rows(e, past, query, last)


def _rotated(
    e: Emitter, ports: Ports, rows: Rows, query: ir.Value, key: ir.Value, size: int
) -> tuple[ir.Value, ir.Value]:
    tables = [ports.need(COS, "cos_cache"), ports.need(SIN, "sin_cache")]
    given = ports.input(POSITIONS)
    positions = rows.queries if given is None else given
    width = 2 * e.width(tables[0], -1, "the width of cos_cache")
    cos, sin = (
        e.share(
            ("angles", id(table), id(positions)),
            lambda table=table: e.spread(looked_up(e, table, positions), 1),
        )
        for table in tables
    )
    paired = ports.int("rotary_interleaved") == 1
    turned = [rotate(e, x, cos, sin, size=size, width=width, paired=paired) for x in (query, key)]
    return turned[0], turned[1]


def _present(e: Emitter, ports: Ports, rows: Rows, new: ir.Value, cache: tuple[int, int, str], size: int) -> ir.Value:
    """The cache with the new rows in it, in the cache's own element type."""
    index, scale, kind = cache
    past = ports.input(index)
    mode, bits = ports.text(kind, "NONE"), ports.int("kv_cache_bit_width", 8)
    if mode != "NONE":
        new = quantized_rows(e, new, ports.need(scale, "k_scale or v_scale"), bits, size)
        size = size * bits // 8
    e.settle(past, 3, size)
    return written(e, rows, past, new, ports.int("kv_num_heads"))


def _read(e: Emitter, ports: Ports, present: ir.Value, cache: tuple[int, int, str]) -> ir.Value:
    _, scale, kind = cache
    if ports.text(kind, "NONE") == "NONE":
        return present
    wanted = e.dtype(ports.need(QUERY, "query"))
    return dequantized_cache(
        e, present, ports.need(scale, "k_scale or v_scale"), ports.int("kv_cache_bit_width", 8), wanted
    )


def _scores(e: Emitter, ports: Ports, rows: Rows, size: int) -> Scores:
    window = ports.int("local_window_size", -1)
    bias = ports.input(BIAS)
    return Scores(
        scale=ports.float("scale") or default_scale(size),
        softcap=ports.float("softcap"),
        bias=_bias(e, rows, bias),
        visible=_visible(e, ports, rows, window),
        sinks=ports.input(SINK),
        smooth=ports.int("smooth_softmax") == 1,
    )


def _bias(e: Emitter, rows: Rows, bias: ir.Value | None) -> ir.Value | None:
    """The bias with a column a row; it counts the tokens, and a buffer may have rows behind them that none sees."""
    if bias is None or rows.length is None:
        return bias
    missing = e("Sub", e("Reshape", rows.length, [1]), e.sizes(bias, 3))
    pads = e("Concat", e.array(np.zeros(7), INT64), missing, axis=0)
    return e("Pad", bias, pads, e.array(0.0, e.dtype(bias)), mode="constant")


def _visible(e: Emitter, ports: Ports, rows: Rows, window: int) -> ir.Value | None:
    """Which rows each query sees: none behind it, ``window`` of them with its own, no padding."""
    if ports.int("causal", 1):
        key = ("visible", rows.key, window)
        return e.share(key, lambda: causal_rows(e, rows.queries, rows.keys, window, rows.mask))
    if rows.mask is not None:
        return key_columns(e, rows.mask)
    return e("Less", e.spread(rows.keys, 0, 1, 2), e.spread(rows.ends(), 1, 2, 3), dtype=BOOL)
