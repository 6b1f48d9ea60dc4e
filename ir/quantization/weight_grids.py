"""Weights get their grids here: one for all of a weight, one a channel, or one a block of a channel's inputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..core.encoding import Encoding, Evidence, Kind
from .decide import Choice
from .grid import no_evidence

SHARES = tuple(1.0 - step / 40 for step in range(20))  # of the largest number: clipping beyond half never pays
AT_ONCE = 1 << 22  # numbers of a weight that are tried at once


def weight_encoding(name: str, array: np.ndarray, choice: Choice, axis: int) -> Encoding:
    """The grid of a weight: one for all, one a channel of ``axis``, or one a block of a channel's inputs.

    Raises NoEvidence where it is not finite.
    """
    cut = _inputs_axis(array, axis) if choice.per_channel and (choice.block or array.ndim > 2) else None
    if cut is None:
        return _by_channel(name, array, choice, axis if choice.per_channel else None)
    return _by_block(name, array, choice, cut, choice.block or array.shape[cut])


def _inputs_axis(array: np.ndarray, axis: int) -> int | None:
    """The axis of a matrix, or a stack of them, whose numbers are summed up; None for other shapes (Conv)."""
    if array.ndim == 2:
        return 1 - axis
    return {array.ndim - 1: array.ndim - 2, array.ndim - 2: array.ndim - 1}.get(axis) if array.ndim == 3 else None


def _by_channel(name: str, array: np.ndarray, choice: Choice, axis: int | None) -> Encoding:
    others = tuple(at for at in range(array.ndim) if at != axis)
    low, high = array.min(axis=others, initial=0), array.max(axis=others, initial=0)
    moved = np.moveaxis(array, axis, 0) if axis is not None else array[None]
    scale, zero = _grids(name, low.reshape(-1), high.reshape(-1), (moved, None), choice)
    shape = (len(scale),) if axis is not None else ()
    return _param(scale, zero, choice, shape, axis if shape else None, None)


def _by_block(name: str, array: np.ndarray, choice: Choice, cut: int, block: int) -> Encoding:
    """One grid for each ``block`` numbers along ``cut``; the last block of a channel may be shorter."""
    starts = range(0, array.shape[cut], block)
    low, high = (
        np.moveaxis(reach(reach.reduceat(array, starts, axis=cut), 0), cut, -1) for reach in (np.minimum, np.maximum)
    )
    blocks = np.moveaxis(array, cut, -1), block
    scale, zero = _grids(name, low.reshape(-1), high.reshape(-1), blocks, choice)
    scale, zero = (np.moveaxis(numbers.reshape(low.shape), -1, cut) for numbers in (scale, zero))
    return _param(scale.reshape(-1), zero.reshape(-1), choice, scale.shape, cut, block)


def _param(
    scale: np.ndarray, zero: np.ndarray, choice: Choice, shape: tuple[int, ...], axis: int | None, block: int | None
) -> Encoding:
    return Encoding(
        tuple(scale.tolist()),
        tuple(zero.tolist()),
        choice.bits,
        signed=choice.symmetric,
        symmetric=choice.symmetric,
        shape=shape,
        axis=axis,
        block=block,
        kind=Kind.PARAM,
    )


def _grids(
    name: str, low: np.ndarray, high: np.ndarray, blocks: tuple[np.ndarray, int | None], choice: Choice
) -> tuple[np.ndarray, np.ndarray]:
    """A scale and zero point for each row of ``blocks``, by the method of the choice; NoEvidence for no numbers."""
    low, high = low.astype(np.float64), high.astype(np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):  # both keep a NaN
        raise no_evidence(name, Evidence(float(low.min(initial=0)), float(high.max(initial=0))))
    if choice.method != "mse":
        return _grid_between(low, high, choice)
    kept, start = np.ones(len(low)), 0
    for rows in _rows(*blocks):
        part = slice(start, start := start + len(rows))
        kept[part] = _best_shares(rows, low[part], high[part], choice)
    return _grid_between(low * kept, high * kept, choice)


def _rows(array: np.ndarray, block: int | None) -> Iterator[np.ndarray]:
    """The numbers of each grid as a row, some at a time: all of an entry, or each ``block`` of the last axis."""
    if not array.size:
        return
    step = max(1, AT_ONCE // (array.size // len(array)))
    for start in range(0, len(array), step):
        part = array[start : start + step]
        if block is not None and (short := -array.shape[-1] % block):
            part = np.concatenate([part, np.zeros((*part.shape[:-1], short), array.dtype)], axis=-1)
        yield part.reshape(len(part), -1) if block is None else part.reshape(-1, block)


def _best_shares(rows: np.ndarray, low: np.ndarray, high: np.ndarray, choice: Choice) -> np.ndarray:
    """For each row the share of its range whose grid errs least."""
    best = np.full(len(rows), np.inf)
    kept = np.ones(len(rows))
    half = 1 << (choice.bits - 1) if choice.symmetric else 0
    smallest, largest = -half, (1 << choice.bits) - 1 - half
    for share in SHARES:
        scale, zero = (
            numbers[:, None].astype(np.float32) for numbers in _grid_between(low * share, high * share, choice)
        )
        back = (np.clip(np.rint(rows / scale) + zero, smallest, largest) - zero) * scale
        error = ((back - rows) ** 2).sum(axis=1)
        better = error < best
        best, kept = np.where(better, error, best), np.where(better, share, kept)
    return kept


def _grid_between(low: np.ndarray, high: np.ndarray, choice: Choice) -> tuple[np.ndarray, np.ndarray]:
    if choice.symmetric:
        reach = np.maximum(high, -low)
        # a channel of zeros is zeros on any grid
        scale = np.maximum(np.where(reach > 0, reach, 1.0) / ((1 << (choice.bits - 1)) - 1), 1e-30)
        return scale, np.zeros(len(scale), np.int64)
    span = high - low
    scale = np.maximum(np.where(span > 0, span, 1.0) / ((1 << choice.bits) - 1), 1e-30)
    return scale, np.clip(np.rint(-low / scale), 0, (1 << choice.bits) - 1).astype(np.int64)
