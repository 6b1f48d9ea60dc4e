"""Holds what a tensor declares against what it holds: no reader need doubt the size of its data."""

from __future__ import annotations

import math

import onnx
import onnx_ir as ir

from ..core.errors import InputError

AGAIN = "The file is damaged: export it again."


def check_embedded(tensor: onnx.TensorProto) -> None:
    """Refuses a tensor that declares another size than it holds, before anything sets room aside for it."""
    where = f"tensor {tensor.name!r}"
    if tensor.HasField("raw_data"):
        wanted = tensor_bytes(tensor, where)
        held = _raw_bytes(tensor, wanted)
    else:
        field = _FIELDS.get(tensor.data_type, "int32_data")
        wanted = _numbers(tensor, where)
        held = len(getattr(tensor, field))
    if held != wanted:
        raise InputError(
            "holds another size than its type and shape", where=where, found=held, wanted=wanted,
            hint=AGAIN,
        )  # fmt: skip


def _raw_bytes(tensor: onnx.TensorProto, wanted: int) -> int:
    """The bytes of raw data, exactly where they are few; of many, what is not the rest of the tensor (no copy)."""
    held = tensor.ByteSize()
    if held <= _FEW_BYTES:
        return len(tensor.raw_data)
    return wanted if 0 <= held - wanted <= _FEW_BYTES else held


def _numbers(tensor: onnx.TensorProto, where: str) -> int:
    """How many numbers a typed field holds: small integers are packed into bytes, complex numbers take two."""
    if tensor.data_type == onnx.TensorProto.STRING:
        return math.prod(tensor.dims)
    wanted, elements = tensor_bytes(tensor, where), math.prod(tensor.dims)
    if tensor.data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
        return 2 * elements
    return min(wanted, elements) if ir.DataType(tensor.data_type).bitwidth in (2, 4) else elements


_FEW_BYTES = 1 << 20
_FIELDS: dict[int, str] = {  # onnx.proto3, TensorProto: the field of each element type, int32_data for the rest
    onnx.TensorProto.FLOAT: "float_data",
    onnx.TensorProto.COMPLEX64: "float_data",
    onnx.TensorProto.DOUBLE: "double_data",
    onnx.TensorProto.COMPLEX128: "double_data",
    onnx.TensorProto.INT64: "int64_data",
    onnx.TensorProto.UINT32: "uint64_data",
    onnx.TensorProto.UINT64: "uint64_data",
    onnx.TensorProto.STRING: "string_data",
}


def tensor_bytes(tensor: onnx.TensorProto, where: str) -> int:
    """Bytes that the type and shape of ``tensor`` take; InputError for types of no fixed size."""
    try:
        dtype = ir.DataType(tensor.data_type)
        bits = dtype.bitwidth
    except (ValueError, TypeError, KeyError) as error:
        raise InputError("has a type of no fixed size", where=where, found=f"data type {tensor.data_type}") from error
    elements = 1
    for dim in tensor.dims:
        if dim < 0:
            raise InputError("has a negative dimension", where=where, found=list(tensor.dims))
        elements *= dim
    return (elements * bits + 7) // 8
