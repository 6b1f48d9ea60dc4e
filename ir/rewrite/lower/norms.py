"""Layer and RMS norms, with and without a residual sum, are spelled in primitive operators."""

from __future__ import annotations

import onnx_ir as ir

from .emitter import FLOAT, HALVES, Emitter, Unfit
from .ports import Ports

MEAN, INVERSE, SUM = 1, 2, 3
"""Outputs of onnxruntime's skip norms; its CPU kernels of 1.32 fill only the sum."""


def rms(e: Emitter, x: ir.Value, scale: ir.Value | None, epsilon: float, *, stash: bool = True) -> ir.Value:
    """``x / sqrt(mean(x²) + epsilon) · scale`` over the last axis; halves are squared in float32 (``stash``)."""
    dtype = e.dtype(x)
    wide = e.as_type(x, FLOAT) if stash and dtype in HALVES else x
    power = e.mean(e("Mul", wide, wide))
    normed = e("Div", wide, e("Sqrt", e("Add", power, epsilon)))
    normed = e.as_type(normed, dtype)
    return normed if scale is None else e("Mul", normed, scale)


def layer(e: Emitter, x: ir.Value, scale: ir.Value | None, bias: ir.Value | None, epsilon: float) -> ir.Value:
    """LayerNormalization over the last axis, an operator of ai.onnx since 17; spelled out before that."""
    if e.opset >= 17 and scale is not None:
        return e("LayerNormalization", x, *([scale] if bias is None else [scale, bias]), axis=-1, epsilon=epsilon)
    dtype = e.dtype(x)
    wide = e.as_type(x, FLOAT) if dtype in HALVES else x
    centred = e("Sub", wide, e.mean(wide))
    normed = e("Div", centred, e("Sqrt", e("Add", e.mean(e("Mul", centred, centred)), epsilon)))
    result = e.as_type(normed, dtype)
    result = result if scale is None else e("Mul", result, scale)
    return result if bias is None else e("Add", result, bias)


def simplified_layer_norm(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """onnxruntime's SimplifiedLayerNormalization (in its ai.onnx domain): an RMS norm over the last axis."""
    ports = Ports(node)
    _refuse_statistics(ports, (1,))
    x = ports.need(0, "X")
    if ports.int("axis", -1) not in (-1, len(x.shape or (0,)) - 1):
        raise Unfit(f"it normalizes over axis {ports.int('axis', -1)} and all behind it")
    return [rms(e, x, ports.need(1, "scale"), ports.float("epsilon", 1e-5), stash=ports.int("stash_type", 1) == 1)]


def skip_simplified(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """SkipSimplifiedLayerNormalization: ``sum = input + skip (+ bias)``, and its RMS norm."""
    ports = Ports(node)
    _refuse_statistics(ports, (MEAN, INVERSE))
    total = _residual(e, ports.need(0, "input"), ports.need(1, "skip"), ports.input(3))
    return [rms(e, total, ports.need(2, "gamma"), ports.float("epsilon", 1e-12)), None, None, total]


def skip_layer(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """SkipLayerNormalization: ``sum = input + skip (+ bias)``, and its layer norm."""
    ports = Ports(node)
    _refuse_statistics(ports, (MEAN, INVERSE))
    total = _residual(e, ports.need(0, "input"), ports.need(1, "skip"), ports.input(4))
    normed = layer(e, total, ports.need(2, "gamma"), ports.input(3), ports.float("epsilon", 1e-12))
    return [normed, None, None, total]


def rms_normalization(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """ai.onnx RMSNormalization (23): the scale is multiplied before the result is rounded to the scale's type."""
    ports = Ports(node)
    x, scale = ports.need(0, "X"), ports.need(1, "scale")
    rank = len(x.shape) if x.shape is not None else None
    if ports.int("axis", -1) != -1 and ports.int("axis", -1) != (rank or 0) - 1:
        raise Unfit(f"it normalizes over axis {ports.int('axis', -1)} and all behind it")
    return [rms(e, x, scale, ports.float("epsilon", 1e-5), stash=ports.int("stash_type", 1) == 1)]


def _residual(e: Emitter, x: ir.Value, skip: ir.Value, bias: ir.Value | None) -> ir.Value:
    total = e("Add", x, skip)
    return total if bias is None else e("Add", total, bias)


def _refuse_statistics(ports: Ports, outputs: tuple[int, ...]) -> None:
    if any(ports.wanted(index) for index in outputs):
        raise Unfit("its mean or inverse deviation is used, which only training needs")
