"""Mixtures of experts: every expert computes every token, and gates of zero leave out those not chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .activations import gelu
from .block_quantized import NATIVE, unpacked, viewed
from .emitter import INT64, Emitter, Unfit
from .ports import Ports, constant

Weights = Callable[[int], "ir.Value | None"]
"""Gives the experts' weights of projection 1, 2 or 3, ``[E, out, in]``; None where there is none."""


@dataclass(frozen=True)
class Slots:
    """Where an operator takes weights and biases of the three projections, and what else QMoE has."""

    weights: tuple[int, int, int]
    biases: tuple[int, int, int]
    scales: tuple[int, int, int] = (-1, -1, -1)
    points: tuple[int, int, int] = (-1, -1, -1)
    gates: int = -1


FLOATS = Slots((2, 4, 6), (3, 5, 7))
PACKED = Slots((2, 5, 8), (4, 7, 10), (3, 6, 9), (11, 12, 13), 14)


def moe(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """MoE: ``sum over the k best experts of gate · fc2(activation(fc1(x)))``."""
    ports = Ports(node)
    return [_experts(e, ports, FLOATS, lambda which: ports.input(FLOATS.weights[which - 1]))]


def qmoe(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """QMoE of integers: the same with weights in blocks along their input features."""
    ports = Ports(node)
    if ports.text("quant_type", "int") != "int":
        raise Unfit(f"its weights are {ports.text('quant_type')}")
    if ports.int("weights_prepacked", 0):
        raise Unfit("its weights are laid out for one provider's kernels")
    return [_experts(e, ports, PACKED, lambda which: _dequantized(e, ports, which))]


def _experts(e: Emitter, ports: Ports, slots: Slots, weights: Weights) -> ir.Value:
    if ports.int("use_sparse_mixer"):
        raise Unfit("it mixes sparsely (use_sparse_mixer)")
    x, router = ports.need(0, "input"), ports.need(1, "router_probs")
    width = e.width(x, -1, "the hidden size")
    tokens = e("Reshape", x, [1, -1, width])
    inner = _product(e, tokens, weights(1), ports.input(slots.biases[0]))
    third = weights(3)
    gate = _product(e, tokens, third, ports.input(slots.biases[2])) if third is not None else None
    hidden = _activated(e, ports, inner, gate, _rows(e, ports.need(slots.weights[0], "fc1_experts_weights")))
    outputs = _product(e, hidden, weights(2), ports.input(slots.biases[1]))
    chosen = _gates(e, ports, router, ports.input(slots.gates) if slots.gates >= 0 else None)
    weighted = e("Mul", outputs, e.spread(e("Transpose", chosen, perm=[1, 0]), 2))
    total = e("ReduceSum", weighted, [0], keepdims=0)
    return e("Reshape", total, e("Shape", x, dtype=INT64))


def _rows(e: Emitter, weight: ir.Value) -> int:
    return e.width(weight, 1, "the width of the experts")


def _product(e: Emitter, x: ir.Value, weight: ir.Value | None, bias: ir.Value | None) -> ir.Value:
    """``x`` ``[1 or E, T, in]`` by ``weight`` ``[E, out, in]``."""
    if weight is None:
        raise Unfit("a projection has no weights")
    product = e("MatMul", x, e("Transpose", weight, perm=[0, 2, 1]))
    return product if bias is None else e("Add", product, e.spread(bias, 1))


def _activated(e: Emitter, ports: Ports, inner: ir.Value, gate: ir.Value | None, width: int) -> ir.Value:
    kind = ports.text("activation_type", "relu")
    if kind == "swiglu":
        return _swiglu(e, ports, inner, gate, width)
    plain = {
        "relu": lambda: e("Relu", inner),
        "gelu": lambda: gelu(e, inner, "tanh"),  # as the CPU kernel of 1.32 computes it
        "silu": lambda: e("Mul", inner, e("Sigmoid", inner)),
        "identity": lambda: inner,
    }
    if kind not in plain:
        raise Unfit(f"its activation is {kind}")
    return plain[kind]() if gate is None else e("Mul", plain[kind](), gate)


def _swiglu(e: Emitter, ports: Ports, inner: ir.Value, linear: ir.Value | None, width: int) -> ir.Value:
    """``G · sigmoid(alpha · G) · (L + beta)``, both clamped; G and L in turn, side by side, or apart."""
    fusion = ports.int("swiglu_fusion")
    if ports.int("swiglu_limit_after_activation"):
        raise Unfit("it clamps behind the activation")
    if fusion == 1:
        inner, linear = (e("Slice", inner, [at], [width], [2], [2]) for at in (0, 1))
    elif fusion == 2:
        inner, linear = e.split(inner, [width // 2, width // 2], 2)
    if linear is None:
        raise Unfit("swiglu has no second projection")
    if "swiglu_limit" in ports.node.attributes and np.isfinite(ports.float("swiglu_limit")):
        limit = ports.float("swiglu_limit")
        inner = e("Min", inner, limit)
        linear = e("Max", e("Min", linear, limit), -limit)
    alpha, beta = ports.float("activation_alpha", 1.0), ports.float("activation_beta", 0.0)
    swish = e("Mul", inner, e("Sigmoid", inner if alpha == 1.0 else e("Mul", inner, alpha)))
    return e("Mul", swish, linear if beta == 0.0 else e("Add", linear, beta))


def _gates(e: Emitter, ports: Ports, router: ir.Value, own: ir.Value | None) -> ir.Value:
    """``[T, E]``: each token's weight of each expert, 0 for those that are not among its ``k`` best."""
    count, normalize = ports.int("k", 1), ports.int("normalize_routing_weights") == 1
    normalize |= (
        ports.node.op_type == "QMoE" and own is None
    )  # its CPU kernel (1.32) takes the softmax of the best alone
    best, places = e.ops("TopK", [router, e.ints([count], f"numbers_{count}")], f"{e.place}/TopK", 2, {"axis": -1})
    best.type, places.type = ir.TensorType(e.dtype(router)), ir.TensorType(INT64)
    if own is not None:
        values = e("GatherElements", own, places, axis=1)
        values = e("Div", values, e("ReduceSum", values, [-1], keepdims=1)) if normalize else values
    elif normalize:
        values = e("Softmax", best, axis=-1)
    else:
        values = e("GatherElements", e("Softmax", router, axis=-1), places, axis=1)
    empty = e("Expand", e.array(np.zeros((1, 1)), e.dtype(router)), e("Shape", router, dtype=INT64))
    return e("ScatterElements", empty, places, values, axis=1)


def _dequantized(e: Emitter, ports: Ports, which: int) -> ir.Value | None:
    """The weights of one projection, off their grids."""
    value = ports.input(PACKED.weights[which - 1])
    if value is None:
        return None
    common = ports.int("expert_weight_bits", 4)
    bits = ports.int(f"fc{which}_expert_weight_bits", common)
    packed = constant(value, f"fc{which}_experts_weights")
    experts, rows, held = (int(size) for size in packed.shape.numpy())
    width = held * 8 // bits
    block = ports.int("block_size") or width
    scales, zero = ports.need(PACKED.scales[which - 1], f"fc{which}_scales"), ports.input(PACKED.points[which - 1])
    count = width // block
    dtype = e.dtype(ports.need(0, "input"))
    if e.blocks and bits in NATIVE and zero is None:
        kind = NATIVE[bits]
        stored = e.constant(viewed(packed, kind, [experts, rows, width]), f"{e.place}/blocks")
        middle = ir.Tensor(np.full((experts, rows, count), 2 ** (bits - 1)).astype(kind.numpy()), dtype=kind)
        points = e.constant(middle, f"{e.place}/zero")
        scale = e("Reshape", scales, [experts, rows, count])
        return e.as_type(
            e("DequantizeLinear", stored, scale, points, axis=2, block_size=block, dtype=e.dtype(scales)), dtype
        )
    steps = unpacked(packed.numpy(), bits).astype(np.float32).reshape(experts, rows, count, block)
    offset = np.full((experts, rows, count), 2.0 ** (bits - 1), np.float32)
    if zero is not None:
        held_points = constant(zero, f"fc{which}_zero_points").numpy()
        if held_points.ndim == 2:  # one byte row an expert, its rows packed
            offset = unpacked(held_points, bits)[:, :rows, None].astype(np.float32)
        else:
            offset = unpacked(held_points, bits)[..., :count].astype(np.float32)
    scale = constant(scales, f"fc{which}_scales").numpy().astype(np.float32).reshape(experts, rows, count)
    whole = (steps - offset[..., None]) * scale[..., None]
    return e.array(whole.reshape(experts, rows, width), dtype)
