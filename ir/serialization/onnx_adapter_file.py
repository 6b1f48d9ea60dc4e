"""onnxruntime's adapter files (``.onnx_adapter``) are read and written: a flatbuffer of named tensors."""

from __future__ import annotations

import importlib
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ..core.errors import InputError

# onnxruntime 1.32, onnxruntime/lora/adapter_format/adapter_schema.fbs: table Parameter { name, dims, data_type,
# raw_data }, table Adapter { format_version, adapter_version, model_version, parameters }; identifier TORT
IDENTIFIER = b"TORT"
FORMAT_VERSION = 1
MAX_BYTES = 2 << 30
MAX_PARAMETERS = 1 << 16
MAX_RANK = 8
_NAME, _DIMS, _TYPE, _DATA = range(4)
_FORMAT, _ADAPTER, _MODEL, _PARAMETERS = range(4)


def write_onnx_adapter(tensors: Mapping[str, np.ndarray], version: int = 1, model_version: int = 1) -> bytes:
    """The bytes of an adapter file that holds these tensors in their order."""
    # what onnxruntime itself depends on; late, as it costs as much to import as a small graph to read
    flatbuffers: Any = importlib.import_module("flatbuffers")
    builder = flatbuffers.Builder(sum(array.nbytes + 256 for array in tensors.values()) + 256)
    places = [_parameter(builder, name, np.ascontiguousarray(array)) for name, array in tensors.items()]
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    parameters = builder.EndVector()
    builder.StartObject(4)
    builder.PrependInt32Slot(_FORMAT, FORMAT_VERSION, 0)
    builder.PrependInt32Slot(_ADAPTER, version, 0)
    builder.PrependInt32Slot(_MODEL, model_version, 0)
    builder.PrependUOffsetTRelativeSlot(_PARAMETERS, parameters, 0)
    builder.Finish(builder.EndObject(), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _parameter(builder: Any, name: str, array: np.ndarray) -> int:
    data = array.tobytes()
    builder.StartVector(1, len(data), 8)  # read in place: values lie on their own boundaries
    builder.head -= len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    content = builder.EndVector()
    builder.StartVector(8, array.ndim, 8)
    for size in reversed(array.shape):
        builder.PrependInt64(size)
    dims = builder.EndVector()
    label = builder.CreateString(name)
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(_NAME, label, 0)
    builder.PrependUOffsetTRelativeSlot(_DIMS, dims, 0)
    builder.PrependInt32Slot(_TYPE, int(ir.DataType.from_numpy(array.dtype)), 0)
    builder.PrependUOffsetTRelativeSlot(_DATA, content, 0)
    return builder.EndObject()


def read_onnx_adapter(path: Path) -> dict[str, ir.ExternalTensor]:
    """The tensors of a file by name, each a reference into it. Raises InputError where it is no such file."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError("is too large for an adapter", where=str(path), found=size, wanted=f"<= {MAX_BYTES}")
        data: Any = np.memmap(path, np.uint8, "r") if size else b""
    except FileNotFoundError:
        raise InputError("no such file", where=str(path), wanted="an adapter of onnxruntime") from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    if bytes(data[4:8]) != IDENTIFIER:
        raise InputError(
            "is no adapter of onnxruntime", where=str(path), found=repr(bytes(data[4:8])), wanted=repr(IDENTIFIER)
        )
    reader = _Reader(memoryview(data), path)
    root = reader.table(reader.number("<I", 0))
    version = reader.scalar(root, _FORMAT, "<i")
    if version != FORMAT_VERSION:
        raise InputError("has another format", where=str(path), found=version, wanted=FORMAT_VERSION)
    tables = reader.items(root, _PARAMETERS, 4, MAX_PARAMETERS)
    tensors = [reader.tensor(reader.table(at + reader.number("<I", at))) for at in tables]
    return {tensor.name or "": tensor for tensor in tensors}


class _Reader:
    """Reads tables out of bytes that may be anything; every place is held against the file's end."""

    def __init__(self, data: memoryview, path: Path) -> None:
        self.data, self.path = data, path

    def number(self, kind: str, at: int) -> int:
        if not 0 <= at <= len(self.data) - struct.calcsize(kind):
            raise InputError("ends within a table", where=str(self.path), found=f"{len(self.data)} bytes", wanted=at)
        return struct.unpack_from(kind, self.data, at)[0]

    def table(self, at: int) -> Callable[[int], int]:
        """Where a field of the table at ``at`` lies; 0 for one that is left out."""
        layout = at - self.number("<i", at)
        count = (self.number("<H", layout) - 4) // 2

        def field(slot: int) -> int:
            offset = self.number("<H", layout + 4 + 2 * slot) if slot < count else 0
            return at + offset if offset else 0

        return field

    def scalar(self, table: Callable[[int], int], slot: int, kind: str) -> int:
        at = table(slot)
        return self.number(kind, at) if at else 0

    def items(self, table: Callable[[int], int], slot: int, width: int, most: int) -> range:
        """The places of a vector's items."""
        at = table(slot)
        start = at + self.number("<I", at) if at else 0
        count = self.number("<I", start) if at else 0
        if count > most or start + 4 + count * width > len(self.data):
            raise InputError("ends within a list", where=str(self.path), found=count)
        return range(start + 4, start + 4 + count * width, width)

    def tensor(self, table: Callable[[int], int]) -> ir.ExternalTensor:
        letters = self.items(table, _NAME, 1, 1 << 16)
        name = bytes(self.data[letters.start : letters.stop]).decode("utf-8", "replace")
        where = f"{self.path}, tensor {name[:120]!r}"
        dims = [self.number("<q", at) for at in self.items(table, _DIMS, 8, MAX_RANK)]
        content = self.items(table, _DATA, 1, MAX_BYTES)
        kind = self.scalar(table, _TYPE, "<i")
        dtype = _FLOATS.get(kind)
        if dtype is None:
            wanted = ", ".join(found.name for found in _FLOATS.values())
            raise InputError("has an element type not known", where=where, found=kind, wanted=wanted)
        if min(dims, default=0) < 0 or math.prod(dims) * int(dtype.itemsize) != len(content):
            raise InputError("has not the bytes of its shape", where=where, found=f"{len(content)} bytes", wanted=dims)
        return ir.ExternalTensor(
            self.path.name, offset=content.start, length=len(content), dtype=dtype, shape=ir.Shape(dims), name=name,
            base_dir=str(self.path.parent),
        )  # fmt: skip


_FLOATS = {int(dtype): dtype for dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)}
