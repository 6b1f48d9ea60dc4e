"""Plans the sizes and paddings that a verification runs: which batch, how many tokens, which positions are padding."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BATCHES = (1, 3)
LENGTHS = (1, 7, 33)
HOLE = -1  # the position of a padded token where positions tell padding


class Padding(enum.Enum):
    """Where a batch's padding lies."""

    FULL = "full"  # no padding
    RIGHT = "right-padded"  # every row as short as the others
    RAGGED = "ragged"  # right-padded, every row of another length
    LEFT = "left-padded"
    PERMUTED = "permuted"  # tokens out of order, right-padded
    HOLED = "holed"  # padding anywhere between the tokens


ORDERED = (Padding.FULL, Padding.RIGHT, Padding.RAGGED)
ANYWHERE = (*ORDERED, Padding.LEFT, Padding.PERMUTED, Padding.HOLED)


@dataclass(frozen=True)
class Case:
    """One run: ``positions`` is ``[batch, length]``, 0 … n-1 once each in every row and -1 for padding."""

    batch: int
    length: int
    padding: Padding
    positions: np.ndarray
    seed: int

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"batch {self.batch}, length {self.length}, {self.padding.value}"

    @property
    def valid(self) -> np.ndarray:
        """BOOL ``[batch, length]``: true for tokens, false for padding."""
        return self.positions >= 0

    @property
    def rows(self) -> np.ndarray:
        """INT64 ``[batch]``: how many tokens each row has."""
        return self.valid.sum(axis=1)


def make_case(batch: int, length: int, padding: Padding, seed: int = 0) -> Case:
    """A case with the positions that ``padding`` means; the same seed gives the same case."""
    random = np.random.default_rng([seed, batch, length, list(Padding).index(padding)])
    counts = _counts(batch, length, padding)
    positions = np.full((batch, length), HOLE, np.int64)
    for row, count in enumerate(counts):
        positions[row, _places(random, length, count, padding)] = _order(random, count, padding)
    return Case(batch, length, padding, positions, seed)


def plan(batches: Sequence[int], lengths: Sequence[int], paddings: Sequence[Padding], seed: int = 0) -> list[Case]:
    """All cases of these sizes; paddings that cannot differ from a simpler one at a size are left out."""
    return [
        make_case(batch, length, padding, seed)
        for batch in batches
        for length in lengths
        for padding in paddings
        if padding is Padding.FULL or (length > 1 and not (padding is Padding.RAGGED and batch == 1))
    ]


def _counts(batch: int, length: int, padding: Padding) -> list[int]:
    if padding is Padding.FULL:
        return [length] * batch
    if padding is Padding.RIGHT:
        return [max(1, length - max(1, length // 3))] * batch
    return [
        max(1, length - 1 - row * max(1, length // 4)) if batch > 1 or length > 2 else length - 1
        for row in range(batch)
    ]


def _places(random: np.random.Generator, length: int, count: int, padding: Padding) -> np.ndarray:
    if padding is Padding.LEFT:
        return np.arange(length - count, length)
    if padding is Padding.HOLED:
        return np.sort(random.permutation(length)[:count])
    return np.arange(count)


def _order(random: np.random.Generator, count: int, padding: Padding) -> np.ndarray:
    return random.permutation(count) if padding is Padding.PERMUTED else np.arange(count)
