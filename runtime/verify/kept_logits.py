"""What to compare where a result keeps fewer logits than the original, or token ids in their place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

Arrays = Mapping[str, np.ndarray]

_ROWS = re.compile(
    r"(?:^|: )logits=last: (?P<output>.+?): \S+ rows of at least as many tokens, "
    r"(?P<how>by attention mask|by positions|by largest position|all rows are valid)(?: (?P<input>.+))?$"
)
_BEST = re.compile(
    r"(?:^|: )logits=best: (?P<ids>.+?): the (?P<k>\d+) best of (?P<logits>.+?)(?:, values in (?P<values>.+))?$"
)


@dataclass(frozen=True)
class LastRows:
    """An output that holds the last valid rows: ``how`` they are known to be valid, and the input that tells it."""

    how: str
    input: str = ""

    def last(self, inputs: Arrays, batch: int, length: int) -> np.ndarray:
        """The last valid row of each batch line."""
        told = inputs.get(self.input)
        if told is None or self.how == "all rows are valid":
            return np.full(batch, length - 1)
        if self.how == "by attention mask":
            valid = told[:, -length:] != 0
        else:
            rows = told.reshape(-1, *told.shape[-2:])[0]
            if self.how == "by largest position":
                return rows.argmax(axis=1)
            valid = rows >= 0
        backwards = valid[:, ::-1].argmax(axis=1)
        return np.where(valid.any(axis=1), length - 1 - backwards, length - 1)


@dataclass(frozen=True)
class Best:
    """An output that holds the token ids of the k largest logits, and perhaps another with their values."""

    ids: str
    logits: str
    k: int
    values: str = ""

    def of(self, logits: np.ndarray) -> dict[str, np.ndarray]:
        """What the outputs hold for these logits: the lowest id first among equals."""
        order = np.argsort(-logits.astype(np.float64), axis=-1, kind="stable")[..., : self.k].astype(np.int64)
        found = {self.ids: order if self.values else order[..., 0]}
        if self.values:
            found[self.values] = np.take_along_axis(logits, order, axis=-1)
        return found


@dataclass(frozen=True)
class KeptLogits:
    """The recorded assumptions on logits, under the original's names."""

    rows: Mapping[str, LastRows] = field(default_factory=dict[str, LastRows])
    best: tuple[Best, ...] = ()

    @classmethod
    def of(cls, assumptions: list[str], renames: Mapping[str, str]) -> KeptLogits:
        """Reads lines ``logits=last: …`` and ``logits=best: …``."""
        old = {name: renames.get(name, name) for line in assumptions for name in _names(line)}
        rows: dict[str, LastRows] = {}
        best: list[Best] = []
        for line in assumptions:
            if found := _ROWS.search(line):
                rows[old[found["output"]]] = LastRows(found["how"], old.get(found["input"] or "", ""))
            elif found := _BEST.search(line):
                values = found["values"] or ""
                best.append(Best(found["ids"], old[found["logits"]], int(found["k"]), values))
        return cls(rows, tuple(best))

    def is_single_row(self, name: str, result: np.ndarray) -> bool:
        """True for logits of one row in all: runtimes take another kernel for one, which sums in another order."""
        return name in self.rows and result.dtype.kind != "i" and result.size == result.shape[-1]

    @property
    def derived_names(self) -> set[str | None]:
        """The outputs that hold token ids or the values of the best logits."""
        return {name for best in self.best for name in (best.ids, best.values) if name}

    def derived(self, outputs: Arrays) -> dict[str, np.ndarray]:
        """The original's outputs, and what its logits say the ids must be."""
        found = dict(outputs)
        for best in self.best:
            if best.logits in outputs:
                found |= best.of(outputs[best.logits])
        return found

    def aligned(
        self, name: str, original: np.ndarray, result: np.ndarray, inputs: Arrays, tokens: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows that both arrays hold, one after another; both as they are where no rows were left out."""
        logits = next((best.logits for best in self.best if name in (best.ids, best.values)), name)
        rule = self.rows.get(logits)
        if rule is None or (original.shape == result.shape and original.shape[1:2] == (tokens[1],)):
            return original, result
        original, result = _with_rows(original, result)
        if original.ndim != result.ndim or min(original.ndim, result.ndim) < 2 or len(original) != len(result):
            return original, result
        last = rule.last(inputs, *tokens)
        ours, theirs = (_rows_of(last, array.shape[1]) for array in (original, result))
        shared = [sorted(set(a) & set(b)) for a, b in zip(ours.tolist(), theirs.tolist(), strict=True)]
        return _picked(original, ours.tolist(), shared), _picked(result, theirs.tolist(), shared)


def _picked(array: np.ndarray, held: list[list[int]], shared: list[list[int]]) -> np.ndarray:
    """The shared rows of each batch line, one after another; ``held`` says which rows the array has."""
    lines = zip(array, held, shared, strict=True)
    return np.concatenate([line[[rows.index(row) for row in both]] for line, rows, both in lines])


def _names(line: str) -> list[str]:
    found = _ROWS.search(line) or _BEST.search(line)
    return [text for text in found.groupdict().values() if text] if found else []


def _with_rows(original: np.ndarray, result: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An original without an axis of rows, for it kept one, gets that axis."""
    return (original[:, None] if original.ndim == result.ndim - 1 else original), result


def _rows_of(last: np.ndarray, count: int) -> np.ndarray:
    """``[batch, count]``: the rows that an array of ``count`` last rows holds."""
    return np.maximum(last + 1 - count, 0)[:, None] + np.arange(count)
