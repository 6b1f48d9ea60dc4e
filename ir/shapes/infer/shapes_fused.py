"""These rules infer the shapes of fused operations that exporters and onnxruntime's optimizers write."""

from __future__ import annotations

import onnx_ir as ir

from ...symbolic.dims import Dim
from . import algebra
from .context import Context, OpKey, ShapeRule, Shapes
from .facts import Shape
from .shapes_elementwise import same
from .shapes_layout import one
from .shapes_matmul import contracted, gemm, matmul
from .shapes_reduce import normalized

MS = "com.microsoft"


def skip_normalized(ctx: Context, node: ir.Node) -> Shapes:
    """``Skip(Simplified)LayerNormalization``: output, mean, inverse deviation, sum."""
    source = ctx.shape(node, 0)
    if source is None:
        return ()
    statistics = (*source[:-1], 1)
    return source, statistics, statistics, source


def matmul_bits(ctx: Context, node: ir.Node) -> Shape | None:
    """``MatMulNBits``: the last dimension becomes N."""
    source = ctx.shape(node, 0)
    return None if source is None else (*source[:-1], ctx.int_attr(node, "N", 0))


def fused_matmul(ctx: Context, node: ir.Node) -> Shape | None:
    """``FusedMatMul`` without batch transposes."""
    a, b = ctx.shape(node, 0), ctx.shape(node, 1)
    if a is None or b is None or ctx.int_attr(node, "transBatchA", 0) or ctx.int_attr(node, "transBatchB", 0):
        return None
    left = (*a[:-2], a[-1], a[-2]) if ctx.int_attr(node, "transA", 0) and len(a) > 1 else a
    right = (*b[:-2], b[-1], b[-2]) if ctx.int_attr(node, "transB", 0) and len(b) > 1 else b
    return contracted(ctx, left, right)


def grouped_attention(ctx: Context, node: ir.Node) -> Shapes:
    """``GroupQueryAttention``: [B, S, heads·size]; present [B, kv heads, past or total, size]."""
    query, past = ctx.shape(node, 0), ctx.shape(node, 3)
    heads, kv_heads = ctx.int_attr(node, "num_heads", 1), ctx.int_attr(node, "kv_num_heads", 1)
    if query is None:
        return ()
    width = query[2] if ctx.has(node, 1) else algebra.floordiv(algebra.mul(query[2], heads), heads + 2 * kv_heads)
    output = (query[0], query[1], width)
    if past is None:
        present: Shape = (
            query[0],
            kv_heads,
            query[1] if not ctx.has(node, 3) else ctx.fresh(),
            algebra.floordiv(width, heads),
        )
    else:
        # a shared buffer keeps its length, a grown one is longer: which, only the caller's buffers say
        present = (past[0], past[1], ctx.fresh(), past[3])
    return output, present, present


def multi_head_attention(ctx: Context, node: ir.Node) -> Shapes:
    """``MultiHeadAttention`` with separate query, key and value; the packed forms stay unknown."""
    query, key, value = ctx.shape(node, 0), ctx.shape(node, 1), ctx.shape(node, 2)
    if query is None or key is None or value is None or len(query) != 3:
        return ()
    heads = ctx.int_attr(node, "num_heads", 1)
    split_value = len(value) == 4
    width = algebra.mul(value[1], value[3]) if split_value else value[2]
    length = key[2] if len(key) == 4 else key[1]
    past = ctx.shape(node, 6)
    total: Dim = algebra.add(past[2], length) if past is not None else ctx.fresh() if ctx.has(node, 6) else length
    output = (query[0], query[1], width)
    key_size = algebra.floordiv(query[2], heads)
    return output, (query[0], heads, total, key_size), (query[0], heads, total, algebra.floordiv(width, heads))


def attention(ctx: Context, node: ir.Node) -> Shapes:
    """ai.onnx ``Attention``: 3-D or 4-D; present is past and current."""
    query, key, value = ctx.shape(node, 0), ctx.shape(node, 1), ctx.shape(node, 2)
    if query is None or key is None or value is None or len(query) != len(value):
        return ()
    past = ctx.shape(node, 4)
    if len(query) == 4:
        output, heads, length = (*query[:3], value[3]), key[1], key[2]
        sizes = key[3], value[3]
    else:
        count, kv_count = ctx.int_attr(node, "q_num_heads", 1), ctx.int_attr(node, "kv_num_heads", 1)
        sizes = algebra.floordiv(key[2], kv_count), algebra.floordiv(value[2], kv_count)
        output, heads, length = (query[0], query[1], algebra.mul(count, sizes[1])), kv_count, key[1]
    total: Dim = algebra.add(past[2], length) if past is not None else ctx.fresh() if ctx.has(node, 4) else length
    return output, (query[0], heads, total, sizes[0]), (query[0], heads, total, sizes[1])


def packed_attention(ctx: Context, node: ir.Node) -> Shapes:
    """com.microsoft ``Attention``: query, key and value in one weight; the present is left unknown."""
    source, weight = ctx.shape(node, 0), ctx.shape(node, 1)
    if source is None or weight is None:
        return ()
    sizes = ctx.ints_attr(node, "qkv_hidden_sizes")
    return ((*source[:-1], sizes[2] if sizes else algebra.floordiv(weight[1], 3)),)


def embed_normalized(ctx: Context, node: ir.Node) -> Shapes:
    """``EmbedLayerNormalization``: tokens by the table's width."""
    tokens, table = ctx.shape(node, 0), ctx.shape(node, 2)
    return () if tokens is None or table is None else ((*tokens, table[1]), (tokens[0],))


def conv_state(ctx: Context, node: ir.Node) -> Shapes:
    """``CausalConvWithState``: output as the input, the state as it was."""
    return ctx.shape(node, 0), ctx.shape(node, 3)


RULES: dict[OpKey, ShapeRule] = {
    ("", "Attention"): attention,
    ("", "RotaryEmbedding"): same,
    (MS, "Attention"): packed_attention,
    (MS, "BiasAdd"): same,
    (MS, "DequantizeLinear"): same,
    (MS, "DynamicQuantizeMatMul"): one(matmul),
    (MS, "BiasGelu"): same,
    (MS, "CausalConvWithState"): conv_state,
    (MS, "EmbedLayerNormalization"): embed_normalized,
    (MS, "FastGelu"): same,
    (MS, "FusedMatMul"): one(fused_matmul),
    (MS, "FusedGemm"): one(gemm),
    (MS, "Gelu"): same,
    (MS, "GroupQueryAttention"): grouped_attention,
    (MS, "MatMulIntegerToFloat"): one(matmul),
    (MS, "MatMulNBits"): one(matmul_bits),
    (MS, "MoE"): same,
    (MS, "MultiHeadAttention"): multi_head_attention,
    (MS, "QMoE"): same,
    (MS, "QuantizeLinear"): same,
    (MS, "QuickGelu"): same,
    (MS, "RotaryEmbedding"): same,
    (MS, "SimplifiedLayerNormalization"): normalized,
    (MS, "SkipLayerNormalization"): skip_normalized,
    (MS, "SkipSimplifiedLayerNormalization"): skip_normalized,
}
