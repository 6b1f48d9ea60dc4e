"""Contracts on position inputs say which rows of them the result is right for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..contract import Array, Arrays, Contract, ContractBroken, port

REBUILT_MASK = 2e-6  # what a mask rebuilt from positions, or another kernel for one row, may differ by
SHOWN = 16  # positions of a row that an error shows


@dataclass(frozen=True)
class PositionRows(Contract):
    """The base of contracts on the rows ``[…, length]`` of one input; the first part of a multi-part position counts.

    Attributes:
        input: The input that holds them.
    """

    assumes: ClassVar[bool] = True
    wanted: ClassVar[str] = ""

    input: str = port(default="")

    def allows(self, row: Array) -> bool:
        """Whether one row of integers is allowed."""
        raise NotImplementedError

    def nearest(self, row: Array) -> Array:
        """A row that is allowed, in place of one that is not."""
        return np.arange(row.size)

    def holds(self, feeds: Arrays) -> None:
        """Raises ContractBroken unless every row is allowed."""
        for number, row in enumerate(_rows(feeds[self.input])) if self.input in feeds else ():
            if not self.allows(row):
                raise ContractBroken(
                    "these positions are outside what the result assumes",
                    where=f"input {self.input!r}, row {number}",
                    found=[int(x) for x in row[:SHOWN]],
                    wanted=self.wanted,
                    hint="Gaps and offsets make the cached original attend to rows that were never written.",
                )

    def constrained(self, feeds: Arrays) -> dict[str, Array]:
        """Rows that are not allowed give way to the nearest that are."""
        held = feeds.get(self.input)
        if held is None or all(self.allows(row) for row in _rows(held)):
            return dict(feeds)
        rows = np.stack([row if self.allows(row) else self.nearest(row) for row in _rows(held)])
        return {**feeds, self.input: np.broadcast_to(rows.reshape(_row_shape(held)), held.shape).astype(held.dtype)}


@dataclass(frozen=True)
class OrderedPositions(PositionRows):
    """Every row runs 0 … n-1 in order, then -1: right padding."""

    kind: ClassVar[str] = "ordered-positions"
    compared: ClassVar[str] = "positions run 0 … n-1, then -1"
    unseen: ClassVar[str] = "gaps, offsets and other orders, which the result may not be fed"
    wanted: ClassVar[str] = "0 … n-1 in order, then -1"

    def allows(self, row: Array) -> bool:
        """Tokens first, in order, then padding."""
        count = int((row >= 0).sum())
        return np.array_equal(row[:count], np.arange(count)) and bool((row[count:] == -1).all())

    def sentence(self) -> str:
        """As people read it."""
        return f"positions=ordered: {self.input}: rows run 0..n-1, then -1 (right padding)"


@dataclass(frozen=True)
class AnyPositions(PositionRows):
    """Every row holds each of 0 … n-1 once, and -1 anywhere between."""

    kind: ClassVar[str] = "any-positions"
    compared: ClassVar[str] = "positions are also left-padded, permuted and with holes, held within 2e-6"
    unseen: ClassVar[str] = "gaps and offsets, which the result may not be fed"
    closeness: ClassVar[float] = REBUILT_MASK
    wanted: ClassVar[str] = "each of 0 … n-1 once, -1 anywhere"

    def allows(self, row: Array) -> bool:
        """A permutation with holes."""
        kept = np.sort(row[row >= 0])
        return np.array_equal(kept, np.arange(kept.size)) and bool((row[row < 0] == -1).all())

    def sentence(self) -> str:
        """As people read it."""
        rule = "the non-negative positions of each row are a permutation of 0..n-1, -1 anywhere"
        return f"positions=any: {self.input}: {rule}"


@dataclass(frozen=True)
class ZeroPosition(PositionRows):
    """An input that only said where a run's first row is written was 0."""

    kind: ClassVar[str] = "zero-position"
    compared: ClassVar[str] = "the input is 0 in the original"
    unseen: ClassVar[str] = "a first row that is written elsewhere, which the result may not be fed"
    wanted: ClassVar[str] = "0"

    def allows(self, row: Array) -> bool:
        """Zeros alone."""
        return not row.any()

    def nearest(self, row: Array) -> Array:
        """Zeros."""
        return np.zeros_like(row)

    def sentence(self) -> str:
        """As people read it."""
        return f"positions=ordered: {self.input}: is 0"


@dataclass(frozen=True)
class KeysOfRun(Contract):
    """An input that counts the valid keys of each sequence counts the run's tokens: no padding, and nothing older.

    Attributes:
        input: The input that counted them.
        tokens: An input with the run's tokens.
        axis: Its axis that counts them.
    """

    kind: ClassVar[str] = "keys-of-run"
    compared: ClassVar[str] = "the input counts the tokens of the run"
    unseen: ClassVar[str] = "padding, which the result may not be fed"
    assumes: ClassVar[bool] = True

    input: str = port(default="")
    tokens: str = port(default="")
    axis: int = 1

    def holds(self, feeds: Arrays) -> None:
        """Raises ContractBroken unless every count is the number of tokens."""
        held, tokens = feeds.get(self.input), feeds.get(self.tokens)
        if held is None or tokens is None or bool((held == tokens.shape[self.axis]).all()):
            return
        raise ContractBroken(
            "these lengths are outside what the result assumes",
            where=f"input {self.input!r}",
            found=[int(x) for x in held.reshape(-1)[:SHOWN]],
            wanted=f"{tokens.shape[self.axis]}, the number of tokens",
            hint="With padding the causal mask is aligned to other keys; give each length a run of its own.",
        )

    def constrained(self, feeds: Arrays) -> dict[str, Array]:
        """Counts that are not the number of tokens give way to it."""
        held, tokens = feeds.get(self.input), feeds.get(self.tokens)
        if held is None or tokens is None:
            return dict(feeds)
        return {**feeds, self.input: np.full_like(held, tokens.shape[self.axis])}

    def sentence(self) -> str:
        """As people read it."""
        return f"{self.input}: is the number of tokens of {self.tokens}"


@dataclass(frozen=True)
class ConsecutivePositions(PositionRows):
    """Every row runs past, past + 1 …, without padding: rows of a growing cache stand in the order of positions."""

    kind: ClassVar[str] = "consecutive-positions"
    compared: ClassVar[str] = "positions run on from the past in every text"
    unseen: ClassVar[str] = "padding and gaps, which the result may not be fed"
    wanted: ClassVar[str] = "past, past + 1 …, no padding"

    def allows(self, row: Array) -> bool:
        """One after another from any start."""
        return not row.size or (row[0] >= 0 and np.array_equal(row, row[0] + np.arange(row.size)))

    def sentence(self) -> str:
        """As people read it."""
        return f"{self.input}: holds past, past + 1 …, no padding"


@dataclass(frozen=True)
class CacheRowPositions(PositionRows):
    """A token's position is the cache row that it is written at, -1 is padding; a row's tokens are consecutive."""

    kind: ClassVar[str] = "cache-row-positions"
    compared: ClassVar[str] = "a token's position is its cache row; rows are idle, and taken back"
    unseen: ClassVar[str] = "positions that are no cache row, which the result may not be fed"
    wanted: ClassVar[str] = "consecutive positions, and -1 for padding"

    def allows(self, row: Array) -> bool:
        """Consecutive but for padding."""
        kept = row[row >= 0]
        return bool((row[row < 0] == -1).all()) and (
            not kept.size or np.array_equal(kept, kept[0] + np.arange(kept.size))
        )

    def sentence(self) -> str:
        """As people read it."""
        return f"{self.input}: a token's position is its cache row, -1 is padding; a row's tokens are consecutive"


def first_rows(positions: Array) -> Array:
    """``[batch, length]``: the row of a multi-part position that says where caches are written."""
    return positions.reshape(-1, *positions.shape[-2:])[0] if positions.ndim > 1 else positions.reshape(1, -1)


def _rows(positions: Array) -> Iterator[Array]:
    yield from first_rows(positions)


def _row_shape(positions: Array) -> Sequence[int]:
    return positions.shape[-2:] if positions.ndim > 1 else positions.shape
