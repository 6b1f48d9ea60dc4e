"""onnxruntime's MultiHeadAttention and Attention are spelled out: packed projections, masks of every form, a past."""

from __future__ import annotations

import onnx_ir as ir

from ...symbolic.dims import Expr
from .attention import Heads, Scores, attend, default_scale, lowest, merge_heads, split_heads
from .emitter import BOOL, INT64, Emitter, Unfit
from .ports import Ports

FILTER = -10000.0  # what the kernels add to the score of a padded key where mask_filter_value is not given


def multi_head_attention(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """MultiHeadAttention: output ``[B, S, H·D]``, present keys and values ``[B, H, T, D]``, the softmax's weights."""
    ports = Ports(node)
    if ports.input(8) is not None or ports.input(9) is not None:
        raise Unfit("its past is a buffer shared between beams")
    heads = ports.int("num_heads")
    query, key, value, size = _separate(e, ports, heads)
    past_key, past_value = ports.input(6), ports.input(7)
    keys = key if past_key is None else e("Concat", past_key, key, axis=2)
    values = value if past_value is None else e("Concat", past_value, value, axis=2)
    bias = _biases(e, ports, query, keys, (ports.input(4), ports.input(5)), past_key)
    scores = Scores(scale=ports.float("scale") or default_scale(size), bias=bias)
    found = attend(e, query, keys, values, Heads(heads, heads), scores)
    return [merge_heads(e, found.output), keys, values, found.weights]


def attention(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """com.microsoft Attention: the projection too, and one past ``[2, B, H, P, D]`` of keys and values."""
    ports = Ports(node)
    if ports.int("do_rotary") or ports.int("past_present_share_buffer") or ports.input(6) is not None:
        raise Unfit("do_rotary and shared buffers belong to GPU kernels")
    x, weights, bias = ports.need(0, "input"), ports.need(1, "weights"), ports.input(2)
    heads = ports.int("num_heads")
    widths = ports.ints("qkv_hidden_sizes") or [e.width(weights, 1, "the width of its weights") // 3] * 3
    projected = e("MatMul", x, weights)
    projected = projected if bias is None else e("Add", projected, bias)
    parts = e.split(projected, widths, 2)
    query, key, value = (split_heads(e, p, heads, w // heads) for p, w in zip(parts, widths, strict=True))
    past, present = ports.input(4), None
    if past is not None:
        key, value = (e("Concat", _half(e, past, at), new, axis=2) for at, new in ((0, key), (1, value)))
    if ports.wanted(1):
        present = e("Concat", e.spread(key, 0), e.spread(value, 0), axis=0)
    mask = _biases(e, ports, query, key, (ports.input(3), ports.input(5)), None if past is None else _half(e, past, 0))
    scores = Scores(scale=ports.float("scale") or default_scale(widths[0] // heads), bias=mask)
    found = attend(e, query, key, value, Heads(heads, heads), scores)
    return [merge_heads(e, found.output, widths[2]), present]


def _half(e: Emitter, past: ir.Value, at: int) -> ir.Value:
    return e.share(("half", id(past), at), lambda: e("Squeeze", e.slice(past, at, at + 1, 0), [0]))


def _separate(e: Emitter, ports: Ports, heads: int) -> tuple[ir.Value, ir.Value, ir.Value, int]:
    """Queries, keys and values ``[B, H, S, D]`` with the projection's bias added, and the head size."""
    query, key, value = ports.need(0, "query"), ports.input(1), ports.input(2)
    bias, rank = ports.input(3), e.rank(query)
    if rank == 5:
        if bias is not None:
            raise Unfit("a bias is added to a packed projection")
        size = e.width(query, 4, "the head size")
        three = [_unpacked(e, query, at) for at in range(3)]
        return three[0], three[1], three[2], size
    width = e.width(query, -1, "the hidden size")
    size = width // heads
    if key is None:
        raise Unfit("it has no input key")
    if e.rank(key) == 5:
        if bias is not None:
            raise Unfit("a bias is added to a packed projection")
        return split_heads(e, query, heads, size), _unpacked(e, key, 0), _unpacked(e, key, 1), size
    if value is None:
        raise Unfit("it has no input value")
    if e.rank(key) == 4:
        parts = _bias_parts(e, bias, width, None)
        return split_heads(e, _plus(e, query, parts[0]), heads, size), key, value, size
    wide = e.width(value, -1, "the width of the values")
    parts = _bias_parts(e, bias, width, wide)
    sizes = (size, size, wide // heads)
    three = [
        split_heads(e, _plus(e, x, part), heads, one)
        for x, part, one in zip((query, key, value), parts, sizes, strict=True)
    ]
    return three[0], three[1], three[2], size


def _unpacked(e: Emitter, packed: ir.Value, at: int) -> ir.Value:
    """Part ``at`` of ``[B, S, H, n, D]`` as ``[B, H, S, D]``."""
    part = e("Squeeze", e.slice(packed, at, at + 1, 3), [3])
    return e("Transpose", part, perm=[0, 2, 1, 3])


def _bias_parts(e: Emitter, bias: ir.Value | None, width: int, wide: int | None) -> list[ir.Value | None]:
    if bias is None:
        return [None, None, None]
    if wide is None:
        return [e.slice(bias, 0, width, 0), None, None]
    return list(e.split(bias, [width, width, wide], 0))


def _plus(e: Emitter, x: ir.Value, bias: ir.Value | None) -> ir.Value:
    return x if bias is None else e("Add", x, bias)


def _biases(
    e: Emitter,
    ports: Ports,
    query: ir.Value,
    keys: ir.Value,
    given: tuple[ir.Value | None, ir.Value | None],
    past: ir.Value | None,
) -> ir.Value | None:
    """What is added to the scores: padding, the triangle of ``unidirectional``, and the bias that was given."""
    mask, bias = given
    found: list[ir.Value] = []
    if bias is not None:
        found.append(bias)
    if mask is not None:
        fill = ports.float("mask_filter_value", FILTER)
        shown = _shown(e, mask, ports.need(0, "query"), query, keys)
        found.append(_filled(e, shown, fill, e.dtype(query)))
    if ports.int("unidirectional"):
        if past is None:
            _refuse_other_lengths(e, ports)
        rows = e.place if past is None else str(past.shape)
        shared = e.share(("triangle", rows, str(keys.dtype)), lambda: _triangle(e, query, keys, past))
        found.append(shared)
    total: ir.Value | None = None
    for one in found:
        total = one if total is None else e("Add", total, one)
    return total


def _refuse_other_lengths(e: Emitter, ports: Ports) -> None:
    """A triangle over keys of another length than the queries': onnxruntime 1.32 puts it in either of two places."""
    key = ports.input(1) if ports.node.op_type == "MultiHeadAttention" else None
    lengths = [e.known(value) for value in (ports.need(0, "query"), key) if value is not None]
    if len(lengths) == 2 and None not in lengths:
        rows, columns = (shape[2 if len(shape) == 4 else 1] for shape in lengths if shape is not None)
        if rows != columns:
            raise Unfit("it is unidirectional over keys of another length, and nothing says where they begin")


def _filled(e: Emitter, shown: ir.Value, fill: float, dtype: ir.DataType) -> ir.Value:
    return e("Where", shown, e.array(0.0, dtype), e.array(fill, dtype), dtype=dtype)


def _triangle(e: Emitter, query: ir.Value, keys: ir.Value, past: ir.Value | None) -> ir.Value:
    """``[1, 1, S, T]``: the most negative number where a key lies behind the query, which stands behind the past."""
    count = e.size(query, 2)
    first = 0 if past is None else e.size(past, 2)
    last = count if isinstance(first, int) else e("Add", first, count)
    line = e.spread(e.range(first, last), 0, 1, 3)
    row = e.spread(e.range(0, e.size(keys, 2)), 0, 1, 2)
    dtype = e.dtype(query)
    return _filled(e, e("LessOrEqual", row, line, dtype=BOOL), lowest(dtype), dtype)


def _shown(e: Emitter, mask: ir.Value, tokens: ir.Value, query: ir.Value, keys: ir.Value) -> ir.Value:
    """The padding mask as BOOL, broadcast to ``[B, 1, S, T]``: lengths, columns, or whole lines."""
    rank = e.rank(mask)
    if rank == 1:
        return _from_lengths(e, mask, tokens, keys)
    shown = e("Greater", e.as_type(mask, INT64), 0, dtype=BOOL)
    if rank == 2:
        return e.spread(shown, 1, 2)
    if rank == 3:
        return e.spread(shown, 1)
    total, rows = e.sizes(keys, 2), e.sizes(query, 2)
    lines = e("Slice", shown, e("Sub", total, rows), total, [2], [1])
    return e("Slice", lines, [0], total, [3], [1])


def _from_lengths(e: Emitter, mask: ir.Value, tokens: ir.Value, keys: ir.Value) -> ir.Value:
    """``[B]`` lengths (padding on the right), or ``[2·B]`` ends and then starts."""
    shape, batch = e.known(mask), e.known(tokens)
    row = e.spread(e.range(0, e.size(keys, 2)), 0, 1, 2)
    ends = e.as_type(mask, INT64)
    known = shape is not None and len(shape) == 1
    items = shape[0] if shape is not None and known else None
    twice = batch is not None and items is not None and batch[0] * 2 == items
    if isinstance(items, Expr | int) and not twice and (batch is None or items == batch[0]):
        return e("Less", row, e("Reshape", ends, [-1, 1, 1, 1]), dtype=BOOL)
    if not twice:
        raise Unfit("nothing tells whether its one-dimensional mask holds lengths, or ends and starts")
    parts = e("Reshape", ends, [2, -1, 1, 1, 1])
    last, first = (e("Squeeze", e.slice(parts, at, at + 1, 0), [0]) for at in (0, 1))
    before = e("Less", row, last, dtype=BOOL)
    return e("And", before, e("GreaterOrEqual", row, first, dtype=BOOL), dtype=BOOL)
