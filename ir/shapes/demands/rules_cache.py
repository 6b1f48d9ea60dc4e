"""These rules state the demands of operators that write, read or hold caches: scatters, gathers, attention."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from ...symbolic.dims import Dim, Expr
from ..infer import algebra
from ..infer.context import Context, normal
from .demand import Demanded, Relation, Rule
from .rules_basic import broadcastable

MS = "com.microsoft"
PACKED_BITS = 4


def equal(a: tuple[Dim, ...] | None, axis: int, right: Dim | None) -> Iterator[Demanded]:
    """One dimension of a shape, where it is known, is that."""
    if a is not None and right is not None and -len(a) <= axis < len(a):
        yield Relation.EQUAL, a[axis], right


def scatter_nd(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """``ScatterND``: updates are as many as the indices, each as wide as what they address."""
    data, index, updates = (ctx.shape(node, port) for port in range(3))
    if data is None or index is None or updates is None or not index or isinstance(index[-1], Expr):
        return
    for left, right in zip(updates, (*index[:-1], *data[index[-1] :]), strict=False):
        yield Relation.EQUAL, left, right


def scatter_elements(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """``ScatterElements``: indices and updates have one shape, that fits into the data beside the axis."""
    data, index, updates = (ctx.shape(node, port) for port in range(3))
    if data is None or index is None or updates is None:
        return
    axis = normal(ctx.int_attr(node, "axis", 0), len(data))
    for place, (left, right) in enumerate(zip(index, updates, strict=False)):
        yield Relation.EQUAL, left, right
        if place != axis:
            yield Relation.AT_MOST, right, data[place]


def tensor_scatter(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """``TensorScatter``: the update has the cache's shape, and is no longer than it along the axis."""
    cache, update = ctx.shape(node, 0), ctx.shape(node, 1)
    if cache is None or update is None:
        return
    axis = normal(ctx.int_attr(node, "axis", -2), len(cache))
    for place, (left, right) in enumerate(zip(update, cache, strict=False)):
        yield (Relation.AT_MOST if place == axis else Relation.EQUAL), left, right


def gather_nd(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """``GatherND``: the batch dimensions are equal."""
    data, index = ctx.shape(node, 0), ctx.shape(node, 1)
    for place in range(ctx.int_attr(node, "batch_dims", 0)):
        if data is not None and index is not None:
            yield Relation.EQUAL, data[place], index[place]


def gather_elements(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """``GatherElements``: indices fit into the data beside the axis."""
    data, index = ctx.shape(node, 0), ctx.shape(node, 1)
    if data is None or index is None:
        return
    axis = normal(ctx.int_attr(node, "axis", 0), len(data))
    for place, (left, right) in enumerate(zip(index, data, strict=False)):
        if place != axis:
            yield Relation.AT_MOST, left, right


def grouped_attention(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """``GroupQueryAttention``: widths are heads times head size, and the cache has the batch, heads and head size."""
    query, key, past_key, past_value = (ctx.shape(node, port) for port in (0, 1, 3, 4))
    heads, kv_heads = ctx.int_attr(node, "num_heads", 1), ctx.int_attr(node, "kv_num_heads", 1)
    if query is None:
        return
    packed = not ctx.has(node, 1)
    size = algebra.floordiv(query[2], heads + 2 * kv_heads if packed else heads)
    for other in (key, ctx.shape(node, 2)):
        yield from equal(other, 0, query[0])
        yield from equal(other, 1, query[1])
        yield from equal(other, 2, algebra.mul(kv_heads, size))
    for past in (past_key, past_value):
        yield from equal(past, 0, query[0])
        yield from equal(past, 1, kv_heads)
        yield from equal(past, 3, _row(size, ctx.int_attr(node, "kv_cache_bit_width", 0)))
    if past_key is not None:
        yield from equal(past_value, 2, past_key[2])
    yield from equal(ctx.shape(node, 5), 0, query[0])
    yield from _within_tables(ctx, node)


def _row(size: Dim, bits: int) -> Dim | None:
    """How wide a cached row is: two numbers of 4 bits share a byte."""
    return algebra.floordiv(size + 1, 2) if bits == PACKED_BITS else size


def _within_tables(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """The rotary tables of a fused attention have a row for every position."""
    total, tables = ctx.items(node, 6), ctx.shape(node, 7)
    if total and tables is not None:
        yield Relation.AT_MOST, total[0], tables[0]


def multi_head_attention(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """``MultiHeadAttention`` with separate query, key and value."""
    query, key, value, past_key, past_value = (ctx.shape(node, port) for port in (0, 1, 2, 6, 7))
    if query is None or len(query) != 3:
        return
    heads = ctx.int_attr(node, "num_heads", 1)
    for other in (key, value):
        yield from equal(other, 0, query[0])
    if key is not None and len(key) == 3:
        yield from equal(key, 2, query[2])
        yield from equal(value, 1 if value is not None and len(value) == 3 else 2, key[1])
    for past in (past_key, past_value):
        yield from equal(past, 0, query[0])
        yield from equal(past, 1, heads)
    yield from equal(past_key, 3, algebra.floordiv(query[2], heads))
    if past_key is not None:
        yield from equal(past_value, 2, past_key[2])
        yield from _bias(ctx, node, query[1], past_key[2], key)


def _bias(ctx: Context, node: ir.Node, rows: Dim, past: Dim, key: tuple[Dim, ...] | None) -> Iterator[Demanded]:
    """An attention bias [B, H, S, T] covers queries and keys."""
    bias = ctx.shape(node, 5)
    if bias is None or len(bias) != 4 or key is None:
        return
    yield Relation.EQUAL, bias[2], rows
    yield Relation.EQUAL, bias[3], algebra.add(past, key[1] if len(key) == 3 else key[2])


def attention(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """ai.onnx ``Attention``: 4-D or 3-D; key and value agree, the mask broadcasts to queries by keys."""
    query, key, value, mask, past = (ctx.shape(node, port) for port in (0, 1, 2, 3, 4))
    if query is None or key is None or value is None or len(query) != len(key):
        return
    rows = 2 if len(query) == 4 else 1
    yield from equal(key, 0, query[0])
    yield from equal(value, 0, query[0])
    yield from equal(value, rows, key[rows])
    if len(query) == 4:
        yield from equal(key, 3, query[3])
    yield from equal(past, 0, query[0])
    length = key[rows] if past is None else algebra.add(past[2], key[rows])
    yield from equal(ctx.shape(node, 5), 2, None if past is None else past[2])
    if mask is not None and (past is not None or not ctx.has(node, 4)):
        yield from broadcastable((query[rows], length), mask[-2:])


def conv_with_state(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """``CausalConvWithState``: the state has the input's batch and channels, and the kernel's rows less one."""
    source, weight, past = (ctx.shape(node, port) for port in (0, 1, 3))
    if source is None or weight is None or past is None:
        return
    yield from equal(past, 0, source[0])
    yield from equal(past, 1, source[1])
    yield from equal(past, 2, algebra.sub(weight[-1], 1))


CACHE: dict[tuple[str, str], Rule] = {
    ("", "Attention"): attention,
    ("", "CausalConvWithState"): conv_with_state,
    ("", "GatherElements"): gather_elements,
    ("", "GatherND"): gather_nd,
    ("", "ScatterElements"): scatter_elements,
    ("", "ScatterND"): scatter_nd,
    ("", "TensorScatter"): tensor_scatter,
    (MS, "CausalConvWithState"): conv_with_state,
    (MS, "GroupQueryAttention"): grouped_attention,
    (MS, "MultiHeadAttention"): multi_head_attention,
}
