"""Contracts on logits say which rows of them are kept, and which token ids leave the graph in their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..contract import Array, Arrays, Contract, Side, port
from .positions import REBUILT_MASK, first_rows

MASK, LARGEST, ALL = "by attention mask", "by largest position", "all rows are valid"
DEFAULT_ROWS = 1  # rows that are asked for where nobody says how many: every run has one


@dataclass(frozen=True)
class LastRows(Contract):
    """An output keeps the last valid rows of each batch line.

    Attributes:
        output: The output.
        rows: How many rows, or empty the input ``symbol`` tells it by its length.
        symbol: That input.
        how: What tells which rows are valid: ``by attention mask``, ``by positions``, ``by largest position`` or
            ``all rows are valid``.
        source: The input that tells it.
        tokens: The input whose second axis counts the tokens of a run.
    """

    kind: ClassVar[str] = "last-rows"
    compared: ClassVar[str] = "the rows that both graphs give, row by row of each batch line"
    unseen: ClassVar[str] = "rows of logits that are not kept"
    assumes: ClassVar[bool] = True

    output: str = port()
    rows: int | None = None
    symbol: str = port(Side.AFTER, default="")
    how: str = ALL
    source: str = port(default="")
    tokens: str = port(default="")

    def adapt_inputs(self, feeds: Arrays) -> dict[str, Array]:
        """The input that tells how many rows is new: it asks for one where the graph before had no such input."""
        new = {self.symbol: np.zeros((DEFAULT_ROWS, 1), np.int64)} if self.symbol else {}
        return {**feeds, **{name: array for name, array in new.items() if name not in feeds or feeds[name].ndim < 2}}

    def comparable(self, name: str, expected: Array, found: Array, feeds: Arrays) -> tuple[Array, Array]:
        """The rows that both hold, one after another; both as they are where no rows were left out."""
        tokens = self._length(feeds, expected)
        if name != self.output or (expected.shape == found.shape and expected.shape[1:2] == (tokens,)):
            return expected, found
        if expected.ndim == found.ndim - 1:  # one row, its axis not kept
            expected = expected[:, None]
        if expected.ndim != found.ndim or min(expected.ndim, found.ndim) < 2 or len(expected) != len(found):
            return expected, found
        last = self.last(feeds, len(expected), tokens)
        ours, theirs = (_rows_of(last, array.shape[1]).tolist() for array in (expected, found))
        shared = [sorted(set(a) & set(b)) for a, b in zip(ours, theirs, strict=True)]
        return _picked(expected, ours, shared), _picked(found, theirs, shared)

    def _length(self, feeds: Arrays, expected: Array) -> int:
        """How many tokens the run has; as many as logits where the feeds do not tell."""
        for name, axis in ((self.tokens, 1), *(((self.source, -1),) if self.how not in (MASK, ALL) else ())):
            if name in feeds and feeds[name].ndim > 1:
                return feeds[name].shape[axis]
        return expected.shape[1] if expected.ndim > 1 else 1

    def last(self, feeds: Arrays, batch: int, length: int) -> Array:
        """The last valid row of each batch line."""
        given = feeds.get(self.source)
        if given is None or self.how == ALL:
            return np.full(batch, length - 1)
        if self.how == LARGEST:
            return first_rows(given).argmax(axis=1)
        valid = given[:, -length:] != 0 if self.how == MASK else first_rows(given) >= 0
        backwards = valid[:, ::-1].argmax(axis=1)
        return np.where(valid.any(axis=1), length - 1 - backwards, length - 1)

    def tolerance(self, name: str, found: Array) -> float:
        """Runtimes take another kernel for one row in all, which sums in another order."""
        single = name == self.output and found.dtype.kind != "i" and found.size == found.shape[-1]
        return REBUILT_MASK if single else 0.0

    def sentence(self) -> str:
        """As people read it."""
        source = f" {self.source}" if self.source else ""
        rows = self.rows if self.rows is not None else self.symbol
        return f"logits=last: {self.output}: {rows} rows of at least as many tokens, {self.how}{source}"


@dataclass(frozen=True)
class BestTokens(Contract):
    """An output holds the token ids of the k largest logits, and perhaps another one their values.

    Attributes:
        ids: The output of ids: ``[batch, rows]`` where no values leave, else ``[batch, rows, k]``.
        logits: The output that held the logits.
        k: How many tokens a row.
        values: The output of their logits.
    """

    kind: ClassVar[str] = "best-tokens"
    compared: ClassVar[str] = (
        "ids and values are recomputed from the original's logits, the lowest id first among equals"
    )
    unseen: ClassVar[str] = "logits below the k best"
    assumes: ClassVar[bool] = True

    ids: str = port(Side.AFTER)
    logits: str = port(Side.BEFORE)
    k: int = 1
    values: str = port(Side.AFTER, default="")

    def expected(self, outputs: Arrays, feeds: Arrays) -> dict[str, Array]:
        """The ids and values that the logits say, the lowest id first among equals."""
        kept = {name: array for name, array in outputs.items() if name != self.logits}
        return kept | self.best(outputs[self.logits]) if self.logits in outputs else kept

    def best(self, logits: Array) -> dict[str, Array]:
        """The outputs for these logits."""
        order = np.argsort(-logits.astype(np.float64), axis=-1, kind="stable")[..., : self.k].astype(np.int64)
        if not self.values:
            return {self.ids: order[..., 0]}
        return {self.ids: order, self.values: np.take_along_axis(logits, order, axis=-1)}

    def output_before(self, name: str) -> str:
        """Ids and values have the rows of the logits."""
        return self.logits if name in (self.ids, self.values) else name

    def sentence(self) -> str:
        """As people read it."""
        values = f", values in {self.values}" if self.values else ""
        return f"logits=best: {self.ids}: the {self.k} best of {self.logits}{values}"


def _picked(array: Array, held: list[list[int]], shared: list[list[int]]) -> Array:
    """The shared rows of each batch line, one after another; ``held`` says which rows the array has."""
    lines = zip(array, held, shared, strict=True)
    return np.concatenate([line[[rows.index(row) for row in both]] for line, rows, both in lines])


def _rows_of(last: Array, count: int) -> Array:
    """``[batch, count]``: the rows that an array of ``count`` last rows holds."""
    return np.maximum(last + 1 - count, 0)[:, None] + np.arange(count)
