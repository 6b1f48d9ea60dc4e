"""Activations and matrix products that runtimes fused are spelled out, each by its own formula."""

from __future__ import annotations

import math

import onnx_ir as ir

from .emitter import Emitter, Unfit
from .ports import Ports


def gelu(e: Emitter, x: ir.Value, approximate: str) -> ir.Value:
    """The Gaussian error linear unit, exact (Erf) or by Tanh; an operator of ai.onnx since 20, spelled out always."""
    half = e("Mul", x, 0.5)
    if approximate == "tanh":
        cubed = e("Mul", e("Mul", x, x), x)
        inner = e("Mul", e("Add", x, e("Mul", cubed, 0.044715)), math.sqrt(2 / math.pi))
        return e("Mul", half, e("Add", e("Tanh", inner), 1.0))
    return e("Mul", half, e("Add", e("Erf", e("Mul", x, math.sqrt(0.5))), 1.0))


def _biased(e: Emitter, ports: Ports) -> ir.Value:
    x, bias = ports.need(0, "X"), ports.input(1)
    return x if bias is None else e("Add", x, bias)


def bias_gelu(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """BiasGelu and com.microsoft Gelu: Gelu of the sum, exact."""
    return [gelu(e, _biased(e, Ports(node)), "none")]


def fast_gelu(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """FastGelu: Gelu by Tanh, with an optional bias before it."""
    return [gelu(e, _biased(e, Ports(node)), "tanh")]


def onnx_gelu(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """ai.onnx Gelu (20) for a target whose opset is older."""
    ports = Ports(node)
    return [gelu(e, ports.need(0, "X"), ports.text("approximate", "none"))]


def quick_gelu(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """QuickGelu and ai.onnx Swish (24): ``x · sigmoid(alpha · x)``."""
    ports = Ports(node)
    x = ports.need(0, "X")
    alpha = ports.float("alpha", 1.0 if not node.domain else 1.702)
    return [e("Mul", x, e("Sigmoid", x if alpha == 1.0 else e("Mul", x, alpha)))]


def swiglu(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """ai.onnx SwiGLU (28): ``A · sigmoid(alpha · A) · B``."""
    ports = Ports(node)
    gate, alpha = ports.need(0, "A"), ports.float("alpha", 1.0)
    swish = e("Mul", gate, e("Sigmoid", gate if alpha == 1.0 else e("Mul", gate, alpha)))
    return [e("Mul", swish, ports.need(1, "B"))]


def bias_split_gelu(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """BiasSplitGelu: the sum's first half times Gelu of its second."""
    ports = Ports(node)
    total = e("Add", ports.need(0, "X"), ports.need(1, "bias"))
    axis = 2
    first, second = _halves(e, total, axis)
    return [e("Mul", first, gelu(e, second, "none"))]


def bias_add(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """BiasAdd: the sum of three operands."""
    ports = Ports(node)
    return [e("Add", e("Add", ports.need(0, "X"), ports.need(1, "bias")), ports.need(2, "skip"))]


def fused_matmul(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """FusedMatMul and TransposeMatMul: ``alpha · op(A) · op(B)``, the last two axes changed where it says so."""
    ports = Ports(node)
    if ports.int("transBatchA") or ports.int("transBatchB"):
        raise Unfit("transBatchA and transBatchB move the batch axes")
    a, b = ports.need(0, "A"), ports.need(1, "B")
    a = _swapped(e, a) if ports.int("transA") else a
    b = _swapped(e, b) if ports.int("transB") else b
    product, alpha = e("MatMul", a, b), ports.float("alpha", 1.0)
    return [product if alpha == 1.0 else e("Mul", product, alpha)]


def _halves(e: Emitter, value: ir.Value, axis: int) -> tuple[ir.Value, ir.Value]:
    width = value.shape[axis] if value.shape is not None and len(value.shape) > axis else None
    if not isinstance(width, int):
        raise Unfit("the width that is split is not known")
    first, second = e.split(value, [width // 2, width // 2], axis)
    return first, second


def _swapped(e: Emitter, value: ir.Value) -> ir.Value:
    if value.shape is None:
        raise Unfit(f"the rank of {value.name!r} is not known")
    rank = len(value.shape)
    if rank < 2:
        return value
    return e("Transpose", value, perm=[*range(rank - 2), rank - 1, rank - 2])
