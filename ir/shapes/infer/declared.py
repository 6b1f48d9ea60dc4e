"""A model says of a value itself: declared shapes, initializers, constants."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import cast
from weakref import WeakKeyDictionary

import numpy as np
import onnx_ir as ir
from onnx_ir.serde import TensorProtoTensor

from ...symbolic.dims import Dim, Expr, free_symbols, parse, substitute
from .facts import MAX_ITEMS, IntTensor, Item

MAX_EXTERNAL = 1024  # bytes; what is larger and lies outside the file is a weight and never read
MAX_FLOATS = 1  # a length cast back and forth is a scalar; a vector of floats is a weight, even one of all ones

INTEGERS = frozenset(
    {
        ir.DataType.INT64,
        ir.DataType.INT32,
        ir.DataType.BOOL,
        ir.DataType.INT16,
        ir.DataType.INT8,
        ir.DataType.UINT8,
        ir.DataType.UINT16,
        ir.DataType.UINT32,
        ir.DataType.UINT64,
    }
)
FLOATS = {ir.DataType.FLOAT: 1 << 24, ir.DataType.DOUBLE: 1 << 53, ir.DataType.FLOAT16: 1 << 11}


def declared_dims(value: ir.Value, binding: Mapping[str, Dim]) -> tuple[Dim | None, ...] | None:
    """The declared shape with symbols bound; None for an unknown dimension or rank."""
    shape = value.shape
    return None if shape is None else tuple(_dim(dim, binding) for dim in shape)


def _dim(dim: int | ir.SymbolicDim, binding: Mapping[str, Dim]) -> Dim | None:
    if isinstance(dim, int):
        return dim if dim >= 0 else None
    text = dim.value
    if not text or text.startswith("?"):
        return None
    found = parse(text)
    return substitute(found, binding) if binding else found


def is_fresh(dim: Dim) -> bool:
    """True where an expression rests on a fresh symbol."""
    return isinstance(dim, Expr) and any(name.startswith("?") for name in free_symbols(dim))


def tensor_shape(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """The shape of a constant."""
    return tuple(cast("tuple[int, ...]", tuple(tensor.shape)))


_RAW = {int(ir.DataType.INT64): ("q", 8, ir.DataType.INT64), int(ir.DataType.INT32): ("i", 4, ir.DataType.INT32)}
"""Element types whose raw bytes are read without an array: a traced graph has ten thousand such constants."""
_CONTENTS: WeakKeyDictionary[ir.TensorProtocol, IntTensor | None] = WeakKeyDictionary()
"""Tensor -> its content, read once: clones share tensors, and a pipeline sweeps one graph several times."""


def tensor_content(tensor: ir.TensorProtocol) -> IntTensor | None:
    """The content of a small constant whose items are exact integers or bools; None for anything else.

    Data outside the file is read up to 1 KiB only, and everything once: a tensor is not changed, but replaced.
    """
    try:
        return _CONTENTS[tensor]
    except KeyError:
        content = _CONTENTS[tensor] = _read(tensor)
        return content
    except TypeError:  # a tensor of the caller's that cannot be referred to weakly
        return _read(tensor)


def _read(tensor: ir.TensorProtocol) -> IntTensor | None:
    if isinstance(tensor, TensorProtoTensor):
        proto = tensor.raw
        raw = _RAW.get(proto.data_type)
        if raw is not None:
            letter, size, kind = raw
            dims = tuple(proto.dims)
            count, data = math.prod(dims), proto.raw_data
            if count <= MAX_ITEMS and len(data) == count * size:
                return IntTensor(dims, struct.unpack(f"<{count}{letter}", data), kind)
    dtype = tensor.dtype
    limit = MAX_ITEMS if dtype in INTEGERS else MAX_FLOATS if dtype in FLOATS else 0
    shape = cast("tuple[int, ...]", tuple(tensor.shape))
    if math.prod(shape) > limit or (isinstance(tensor, ir.ExternalTensor) and tensor.nbytes > MAX_EXTERNAL):
        return None
    try:
        array = tensor.numpy()
    except (OSError, ValueError):  # a missing or outside file is for the loader to report
        return None
    return array_content(array, dtype)


def array_content(array: np.ndarray, dtype: ir.DataType) -> IntTensor | None:
    """An array as content; None where a float is no exact integer (or is the negative zero)."""
    if dtype in FLOATS and not _exact(array, FLOATS[dtype]):
        return None
    items: list[int | float | bool] = array.ravel().tolist()
    exact = tuple(int(item) for item in items) if dtype in FLOATS else tuple(items)
    return IntTensor(array.shape, cast("tuple[Item, ...]", exact), dtype)


def _exact(array: np.ndarray, bound: int) -> bool:
    wide = array.astype(np.float64)
    whole = np.isfinite(wide) & (np.abs(wide) < bound)
    return bool(np.all(whole) and np.all(np.floor(wide) == wide) and not np.any(np.signbit(wide) & (wide == 0)))
