"""The table of lowerings: one row an operator, what replaces it, the text or kernel that says so, and how exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from . import activations, block_quantized, gqa, mha, moe, norms, onnx_attention, recurrent, rotary
from .emitter import Emitter

Expansion = Callable[[Emitter, ir.Node], "list[ir.Value | None]"]
"""Emits what stands in for a node and gives its outputs in order; raises Unfit where it cannot be exact."""
MS = "com.microsoft"
ORT = "onnxruntime 1.32.0, contrib operator schema and CPU kernel"
ONNX = "onnx 1.23.2, operator text and function body"


@dataclass(frozen=True)
class Row:
    """How one operator is replaced.

    Attributes:
        expand: Emits the replacement.
        source: The specification or kernel that the replacement follows, with its version.
        tolerance: The largest difference to the kernel in float32, of the largest value.
        since: The opset that brought an ai.onnx operator; a target with it may keep the node. 0 for other domains.
    """

    expand: Expansion
    source: str = ORT
    tolerance: float = 2e-6
    since: int = 0


ROWS: Mapping[tuple[str, str], Row] = {
    ("", "SimplifiedLayerNormalization"): Row(norms.simplified_layer_norm),
    ("", "RMSNormalization"): Row(norms.rms_normalization, ONNX, since=23),
    ("", "RotaryEmbedding"): Row(rotary.onnx_rotary_embedding, ONNX, since=23),
    ("", "CausalConvWithState"): Row(recurrent.causal_conv, ONNX, since=27),
    ("", "LinearAttention"): Row(recurrent.linear_attention, ONNX, since=27),
    ("", "Gelu"): Row(activations.onnx_gelu, ONNX, since=20),
    ("", "Attention"): Row(onnx_attention.attention, ONNX, since=23),
    ("", "TensorScatter"): Row(onnx_attention.tensor_scatter, ONNX, since=24),
    ("", "SwiGLU"): Row(activations.swiglu, ONNX, since=28),
    ("", "Swish"): Row(activations.quick_gelu, ONNX, since=24),
    (MS, "Attention"): Row(mha.attention),
    (MS, "BiasAdd"): Row(activations.bias_add),
    (MS, "BiasGelu"): Row(activations.bias_gelu),
    (MS, "BiasSplitGelu"): Row(activations.bias_split_gelu),
    (MS, "CausalConvWithState"): Row(recurrent.causal_conv),
    (MS, "FastGelu"): Row(activations.fast_gelu),
    (MS, "FusedMatMul"): Row(activations.fused_matmul),
    (MS, "Gelu"): Row(activations.bias_gelu),
    (MS, "GroupQueryAttention"): Row(gqa.group_query_attention),
    (MS, "GatherBlockQuantized"): Row(block_quantized.gather_block_quantized),
    (MS, "LinearAttention"): Row(recurrent.linear_attention),
    (MS, "MatMulNBits"): Row(block_quantized.matmul_nbits),
    (MS, "MoE"): Row(moe.moe),
    (MS, "QMoE"): Row(moe.qmoe),
    (MS, "MultiHeadAttention"): Row(mha.multi_head_attention),
    (MS, "QuickGelu"): Row(activations.quick_gelu),
    (MS, "RotaryEmbedding"): Row(rotary.rotary_embedding),
    (MS, "SkipLayerNormalization"): Row(norms.skip_layer),
    (MS, "SkipSimplifiedLayerNormalization"): Row(norms.skip_simplified),
    (MS, "TransposeMatMul"): Row(activations.fused_matmul),
}
