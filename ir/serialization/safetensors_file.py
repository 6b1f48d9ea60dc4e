"""The tensors of a safetensors file are found by its header; their bytes stay in the file until they are read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import onnx_ir as ir

from ..core.errors import InputError
from .strict_json import BrokenText, parse_json

MAX_HEADER = 100_000_000  # bytes, as in safetensors 0.6, src/tensor.rs: MAX_HEADER_SIZE
DTYPES = {
    "F64": ir.DataType.DOUBLE,
    "F32": ir.DataType.FLOAT,
    "F16": ir.DataType.FLOAT16,
    "BF16": ir.DataType.BFLOAT16,
    "I64": ir.DataType.INT64,
    "I32": ir.DataType.INT32,
    "I8": ir.DataType.INT8,
    "U8": ir.DataType.UINT8,
    "BOOL": ir.DataType.BOOL,
}


def read_safetensors(path: Path) -> dict[str, ir.ExternalTensor]:
    """The tensors of a file by name, each a reference into it. Raises InputError where it is no such file."""
    where = str(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER, size - 8):
                raise InputError("is no safetensors file", where=where, found=f"a header of {length} bytes")
            text = file.read(length).decode("utf-8")
    except FileNotFoundError:
        raise InputError("no such file", where=where, wanted="a safetensors file") from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=where) from None
    except UnicodeDecodeError:
        raise InputError("is no safetensors file", where=where, found="a header that is no text") from None
    try:
        header: Any = parse_json(text)
    except BrokenText as broken:
        raise InputError(f"the header {broken.what}", where=where, found=broken.found) from None
    if not isinstance(header, dict):
        raise InputError("is no safetensors file", where=where, found="a header that is no object")
    entries = cast("dict[str, Any]", header)
    start = 8 + length
    return {n: _tensor(path, n, entry, start, size) for n, entry in entries.items() if n != "__metadata__"}


def _tensor(path: Path, name: str, entry: Any, start: int, size: int) -> ir.ExternalTensor:
    where = f"{path}, tensor {name[:120]!r}"
    fields = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    dtype, shape, span = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise InputError("has an element type not known", where=where, found=repr(dtype)[:80], wanted=", ".join(DTYPES))
    dims, edges = _counts(shape), _counts(span)
    if dims is None or edges is None or len(edges) != 2:
        raise InputError("has no shape or no place in the file", where=where, found=repr(fields)[:120])
    low, high = edges
    wanted = math.prod(dims) * int(DTYPES[dtype].itemsize)
    if high - low != wanted or start + high > size:
        raise InputError("has not the bytes of its shape", where=where, found=f"{high - low} bytes", wanted=wanted)
    return ir.ExternalTensor(
        path.name, offset=start + low, length=wanted, dtype=DTYPES[dtype], shape=ir.Shape(dims), name=name,
        base_dir=str(path.parent),
    )  # fmt: skip


def _counts(found: Any) -> list[int] | None:
    items = cast("list[Any]", found) if isinstance(found, list) else None
    if items is None or not all(type(item) is int and 0 <= item < 1 << 48 for item in items):
        return None
    return list(items)
