"""A cache of 8-bit or packed 4-bit integers inside a fused attention, as onnxruntime quantizes and reads it."""

from __future__ import annotations

import onnx_ir as ir

from .emitter import FLOAT, Emitter, Unfit

UINT8, INT8 = ir.DataType.UINT8, ir.DataType.INT8
LIMITS = {8: (-128.0, 127.0), 4: (-8.0, 7.0)}
OFFSET = 8.0  # 4-bit numbers are stored as their distance from -8


def quantized_rows(e: Emitter, x: ir.Value, scale: ir.Value, bits: int, size: int) -> ir.Value:
    """``x`` ``[B, KV, S, D]`` (D is ``size``) on its grid: int8, or two 4-bit numbers a uint8, the lower half first."""
    if bits not in LIMITS:
        raise Unfit(f"its cache has {bits} bits")
    low, high = (e.array(limit, FLOAT) for limit in LIMITS[bits])
    steps = e("Round", e("Div", e.as_type(x, FLOAT), e.as_type(scale, FLOAT)))
    steps = e("Min", e("Max", steps, low), high)
    if bits == 8:
        return e.as_type(steps, INT8)
    even, odd = (e("Slice", e("Add", steps, OFFSET), [at], [size], [3], [2]) for at in (0, 1))
    return e.as_type(e("Add", even, e("Mul", odd, 16.0)), UINT8)


def dequantized_cache(e: Emitter, cache: ir.Value, scale: ir.Value, bits: int, dtype: ir.DataType) -> ir.Value:
    """The numbers that a cache of integers stands for, ``[B, KV, T, D]`` in ``dtype``."""
    if bits == 8:
        return e.as_type(e("Mul", e.as_type(cache, FLOAT), e.as_type(scale, FLOAT)), dtype)
    both = e.as_type(cache, FLOAT)
    high = e("Floor", e("Div", both, 16.0))
    low = e("Sub", both, e("Mul", high, 16.0))
    pairs = e("Concat", e.spread(low, 4), e.spread(high, 4), axis=4)
    steps = e("Sub", e("Reshape", pairs, [0, 0, 0, -1]), OFFSET)
    return e.as_type(e("Mul", steps, e.as_type(scale, FLOAT)), dtype)
