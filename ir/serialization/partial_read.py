"""Rows or columns of a tensor are read without the rest of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ..core.errors import InputError

FEW = 64  # up to so many rows or columns each is read alone; of more, those that lie near are read in one go
NEAR = 4096  # bytes


def take(tensor: ir.TensorProtocol, indices: Sequence[int], axis: int) -> ir.TensorProtocol:
    """The slices of ``tensor`` at ``indices`` along ``axis``, in their order; of external data only those are read.

    Elements of less than a byte are read whole unless their rows along axis 0 fill whole bytes. Raises InputError where
    the file is shorter than the tensor.
    """
    whole_bytes = float(tensor.dtype.itemsize).is_integer()
    if not isinstance(tensor, ir.ExternalTensor) or not whole_bytes:
        return ir.Tensor(np.take(tensor.numpy(), np.asarray(indices), axis=axis), dtype=tensor.dtype, name=tensor.name)
    shape = [int(size) for size in tensor.shape.numpy()]
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :]) * int(tensor.dtype.itemsize)
    places = {index: at for at, index in enumerate(dict.fromkeys(sorted(indices)))}
    found = np.empty((outer, len(places), inner), np.uint8)
    runs = list(_runs(list(places), NEAR // max(inner, 1) if len(places) > FEW else 0))
    with Path(tensor.path).open("rb", buffering=0) as file:
        for line in range(outer):
            start = (tensor.offset or 0) + line * shape[axis] * inner
            for first, last in runs:
                file.seek(start + first * inner)
                data = file.read((last - first + 1) * inner)
                if len(data) != (last - first + 1) * inner:
                    raise InputError("the weight file is too short", where=str(tensor.path), found=tensor.name)
                block = np.frombuffer(data, np.uint8).reshape(-1, inner)
                for index in range(first, last + 1):
                    if index in places:
                        found[line, places[index]] = block[index - first]
    ordered = found[:, [places[index] for index in indices]]
    array = np.ascontiguousarray(ordered).reshape(-1).view(tensor.dtype.numpy())
    shape[axis] = len(indices)
    return ir.Tensor(array.reshape(shape), dtype=tensor.dtype, name=tensor.name)


def _runs(indices: Sequence[int], gap: int) -> Iterator[tuple[int, int]]:
    """First and last of indices that follow each other, with at most ``gap`` between them."""
    first = last = indices[0]
    for index in indices[1:]:
        if index - last > gap + 1:
            yield first, last
            first = index
        last = index
    yield first, last
