"""Weights in blocks of 2, 4 or 8 bits become packed blocks with DequantizeLinear, or are dequantized once."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnx_ir as ir

from ...core.packed import WIDTHS, unpack_bytes
from .emitter import FLOAT, INT64, Emitter, Unfit
from .ports import Ports, constant

UINT8, UINT4 = ir.DataType.UINT8, ir.DataType.UINT4
NATIVE = {4: UINT4, 8: UINT8}


def matmul_nbits(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """MatMulNBits: ``A · dequantize(B)ᵀ (+ bias)``, B ``[N, blocks, bytes]``, its bits packed from the lowest on."""
    ports = Ports(node)
    a, packed = ports.need(0, "A"), constant(ports.input(1), "B")
    if ports.int("weight_prepacked"):
        raise Unfit("its weight is laid out for one GPU's kernels")
    if ports.input(4) is not None:
        raise Unfit("it permutes groups (g_idx), which is deprecated")
    bits, block, width = ports.int("bits", 4), ports.int("block_size"), ports.int("K")
    if packed.size == 0:
        raise Unfit("its weight is empty")
    weight = _weight(e, ports, packed, bits, block, width)
    product = e("MatMul", a, e("Transpose", weight, perm=[1, 0]))
    bias = ports.input(5)
    return [product if bias is None else e("Add", product, bias)]


def _weight(e: Emitter, ports: Ports, packed: ir.TensorProtocol, bits: int, block: int, width: int) -> ir.Value:
    """The weight ``[N, K]`` in A's element type."""
    scales, zero = ports.need(2, "scales"), ports.input(3)
    count = -(-width // block)
    rows = ports.int("N")
    dtype = e.dtype(scales)
    plain = zero is None or e.dtype(zero) is UINT8
    if e.blocks and bits in NATIVE and plain and width % block == 0:
        kind = NATIVE[bits]
        scale = _reshaped(e, scales, [rows, count])
        points = _points(e, zero, rows, count, bits)
        stored = e.constant(viewed(packed, kind, [rows, width]), f"{e.place}/blocks")
        return e("DequantizeLinear", stored, scale, points, axis=1, block_size=block, dtype=dtype)
    steps = unpacked(packed.numpy().reshape(rows, count, -1), bits).astype(np.float32)
    if zero is None:
        offset = np.full((rows, count), 2 ** (bits - 1), np.float32)
    elif plain:
        offset = unpacked(constant(zero, "zero_points").numpy().reshape(rows, -1), bits)[:, :count].astype(np.float32)
    else:
        offset = constant(zero, "zero_points").numpy().reshape(rows, count).astype(np.float32)
    scale = constant(scales, "scales").numpy().reshape(rows, count).astype(np.float32)
    whole = (steps - offset[:, :, None]) * scale[:, :, None]
    return e.array(whole.reshape(rows, -1)[:, :width], dtype)


def _points(e: Emitter, zero: ir.Value | None, rows: int, count: int, bits: int) -> ir.Value:
    """The zero points ``[N, blocks]`` as integers of the weight's type."""
    kind = NATIVE[bits]
    if zero is None:
        middle = np.full((rows, count), 2 ** (bits - 1), np.uint8)
        return e.share(("points", rows, count, bits), lambda: e.constant(_packed(middle, kind), f"{e.place}/zero"))
    tensor = constant(zero, "zero_points")
    if (count * bits) % 8 == 0:
        return e.constant(viewed(tensor, kind, [rows, count]), f"{e.place}/zero")
    points = unpacked(tensor.numpy().reshape(rows, -1), bits)[:, :count]
    return e.constant(_packed(points, kind), f"{e.place}/zero")


def _packed(content: np.ndarray[Any, Any], kind: ir.DataType) -> ir.Tensor[Any]:
    return ir.Tensor(content.astype(kind.numpy()), dtype=kind)


def _reshaped(e: Emitter, value: ir.Value, shape: list[int]) -> ir.Value:
    known = value.shape is not None and list(value.shape) == shape
    return value if known else e("Reshape", value, shape)


def viewed(tensor: ir.TensorProtocol, kind: ir.DataType, shape: list[int]) -> ir.TensorProtocol:
    """The same bytes as ``kind`` in another shape: a reference into the same file where the tensor is one."""
    if isinstance(tensor, ir.ExternalTensor):
        location, folder = os.fspath(tensor.location), os.fspath(tensor.base_dir)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType, reportUnknownArgumentType]
        return ir.ExternalTensor(
            location, tensor.offset, tensor.length, kind, shape=ir.Shape(shape), name="", base_dir=folder
        )
    content = np.frombuffer(tensor.tobytes(), np.uint8)
    if kind is UINT8:
        return ir.Tensor(content.reshape(shape))
    return ir.PackedTensor(content, kind, shape=ir.Shape(shape))


def unpacked(content: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    """``[…, bytes]`` to the unsigned numbers in them, the lowest bits first."""
    if bits not in WIDTHS:
        raise Unfit(f"its weight has {bits} bits")
    return unpack_bytes(content, bits)


def gather_block_quantized(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """GatherBlockQuantized along axis 0: the packed rows are gathered, then taken off their grids."""
    ports = Ports(node)
    data, ids, scales, zero = ports.need(0, "data"), ports.need(1, "indices"), ports.need(2, "scales"), ports.input(3)
    rank = e.rank(data)
    axis, along = ports.int("gather_axis") % rank, ports.int("quantize_axis", 1) % rank
    if rank != 2 or axis != 0 or along != 1:
        raise Unfit(f"it gathers along axis {axis} of {rank} and its blocks lie along {along}")
    stored = constant(_before_reshape(data), "data")
    bits = ports.int("bits", 4)
    kind = e.dtype(data)
    if kind is UINT8:
        points = 2 ** (bits - 1) if zero is None else None
    elif kind in (UINT4, ir.DataType.INT4):
        bits, points = 4, 0 if zero is None else None
    else:
        raise Unfit(f"its table has the element type {kind.name}")
    signed = kind is ir.DataType.INT4
    rows = int(stored.shape.numpy()[0])
    wide = e.width(scales, 1, "the number of blocks")
    table = data if kind is UINT8 else e.constant(viewed(stored, UINT8, [rows, stored.nbytes // rows]), "table")
    taken = _rows_of(e, table, ids, bits, signed=signed)
    scale = e("Gather", scales, ids, axis=0)
    dtype = e.dtype(scales)
    steps = e("Reshape", taken, e("Concat", e("Shape", ids, dtype=INT64), [wide, -1], axis=0))
    if points is None:
        assert zero is not None
        held = zero if e.dtype(zero) is UINT8 else _bytes(e, zero, rows)
        own = _rows_of(e, held, ids, bits, signed=signed)
        own = e("Slice", own, [0], [wide], [-1], [1])
        steps = e("Sub", steps, e("Unsqueeze", own, [-1]))
    elif points:
        steps = e("Sub", steps, float(points))
    result = e("Mul", e.as_type(steps, dtype), e("Unsqueeze", scale, [-1]))
    return [e("Reshape", result, e("Concat", e("Shape", ids, dtype=INT64), [-1], axis=0))]


def _before_reshape(data: ir.Value) -> ir.Value:
    """A table that is tied to the head is that weight in another shape: genai's builder (0.18) puts a Reshape there."""
    node = data.producer()
    first = node.inputs[0] if node is not None and node.op_type == "Reshape" and not node.domain else None
    return data if first is None else first


def _bytes(e: Emitter, zero: ir.Value, rows: int) -> ir.Value:
    tensor = constant(zero, "zero_points")
    count = int(tensor.shape.numpy()[1])
    if count % 2:
        raise Unfit("its 4-bit zero points do not fill whole bytes")
    return e.constant(viewed(tensor, UINT8, [rows, count // 2]), "zero")


def _rows_of(e: Emitter, table: ir.Value, ids: ir.Value, bits: int, *, signed: bool) -> ir.Value:
    """The numbers in the gathered rows of a packed table ``[rows, bytes]``, float32 ``[…, numbers]``."""
    held = e.as_type(e("Gather", table, ids, axis=0), FLOAT)
    if bits == 8:
        return held
    parts: list[ir.Value] = []
    for _ in range(8 // bits - 1):
        rest = e("Floor", e("Div", held, float(2**bits)))
        parts.append(e("Sub", held, e("Mul", rest, float(2**bits))))
        held = rest
    parts.append(held)
    whole = e("Concat", *(e("Unsqueeze", part, [-1]) for part in parts), axis=-1)
    flat = e("Reshape", whole, e("Concat", e("Shape", ids, dtype=INT64), [-1], axis=0))
    if not signed:
        return flat
    negative = e("GreaterOrEqual", flat, 8.0, dtype=ir.DataType.BOOL)
    return e("Where", negative, e("Sub", flat, 16.0), flat)
