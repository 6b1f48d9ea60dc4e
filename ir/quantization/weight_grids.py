"""Weights get their grids here: one for all of a weight, one a channel, or one a block of a channel's inputs."""

from __future__ import annotations

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
    if not np.isfinite(array).all():
        raise no_evidence(name, Evidence(float(array.min(initial=0)), float(array.max(initial=0))))
    cut = _inputs_axis(array, axis) if choice.per_channel and (choice.block or array.ndim > 2) else None
    if cut is None:
        return _by_channel(array, choice, axis if choice.per_channel else None)
    return _by_block(array, choice, cut, choice.block or array.shape[cut])


def _inputs_axis(array: np.ndarray, axis: int) -> int | None:
    """The axis of a matrix, or a stack of them, whose numbers are summed up; None for other shapes (Conv)."""
    if array.ndim == 2:
        return 1 - axis
    return {array.ndim - 1: array.ndim - 2, array.ndim - 2: array.ndim - 1}.get(axis) if array.ndim == 3 else None


def _by_channel(array: np.ndarray, choice: Choice, axis: int | None) -> Encoding:
    rows = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1) if axis is not None else array.reshape(1, -1)
    scale, zero = _grids(rows, choice)
    shape = (len(scale),) if axis is not None else ()
    return _param(scale, zero, choice, shape, axis if shape else None, None)


def _by_block(array: np.ndarray, choice: Choice, cut: int, block: int) -> Encoding:
    """One grid for each ``block`` numbers along ``cut``; the last block of a channel may be shorter."""
    count = -(-array.shape[cut] // block)
    padded = np.moveaxis(array, cut, -1)
    short = count * block - array.shape[cut]
    if short:
        padded = np.concatenate([padded, np.zeros((*padded.shape[:-1], short), array.dtype)], axis=-1)
    scale, zero = _grids(padded.reshape(-1, block), choice)
    shape = (*padded.shape[:-1], count)
    scale, zero = (np.moveaxis(numbers.reshape(shape), -1, cut) for numbers in (scale, zero))
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


def _grids(rows: np.ndarray, choice: Choice) -> tuple[np.ndarray, np.ndarray]:
    """A scale and zero point for each row, by the method of the choice."""
    high = rows.max(axis=1, initial=0).astype(np.float64)
    low = rows.min(axis=1, initial=0).astype(np.float64)
    if choice.method != "mse":
        return _grid_between(low, high, choice)
    step = max(1, AT_ONCE // rows.shape[1])
    kept = np.concatenate(
        [
            _best_shares(rows[at : at + step], low[at : at + step], high[at : at + step], choice)
            for at in range(0, len(rows), step)
        ]
    )
    return _grid_between(low * kept, high * kept, choice)


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
