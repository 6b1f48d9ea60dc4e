"""Contracts on task heads say which vectors, scores and hidden rows leave a graph in place of what it gave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..contract import Array, Arrays, Contract, Inner, Side, port
from .logits import ALL, MASK
from .positions import first_rows

SUMS = 1e-6  # what float32 sums over rows may differ by from exact ones
HALF = 2e-3  # one rounding to half precision at the end, two units in its last place
ONE_STEP = 1 / 127 + 1e-9  # of int8 vectors: a value between two steps may go to either
SHOWN = 8  # token ids of a sentence
LEAST_NORM = 1e-12  # below it a vector is not stretched, as in torch.nn.functional.normalize


@dataclass(frozen=True)
class Pooled(Contract):
    """One vector a batch line takes the place of its hidden rows.

    Attributes:
        output: The output of vectors: ``[batch, width]``.
        hidden: The output, or the value inside, that held the rows: ``[batch, tokens, width]``.
        pooling: last, cls, mean, weighted-mean or max, over valid rows; a line without one gives zeros.
        normalize: none, or l2.
        dims: How many of the first dimensions are kept before the norm; all for None.
        quantize: none, int8 (``scale`` holds what one step is), or binary (eight signs a byte).
        scale: The output of int8 steps.
        how: What tells which rows are valid, as in :class:`LastRows`.
        source: The input that tells it.
        inside: Whether ``hidden`` was no output.
    """

    kind: ClassVar[str] = "pooled"
    compared: ClassVar[str] = (
        "each vector is recomputed from the original's hidden rows in float64 and held within 1e-6 (2e-3 in "
        "half precision, one step of int8)"
    )
    unseen: ClassVar[str] = "rows that no case marks as padding"
    assumes: ClassVar[bool] = True

    output: str = port(Side.AFTER)
    hidden: str = port(Side.BEFORE)
    pooling: str = "mean"
    normalize: str = "none"
    dims: int | None = None
    quantize: str = "none"
    scale: str = port(Side.AFTER, default="")
    how: str = ALL
    source: str = port(default="")
    inside: bool = False

    def observed(self) -> tuple[Inner, ...]:
        """Rows that were no output are made one to be compared with."""
        return (Inner(self.hidden),) if self.inside else ()

    def expected(self, outputs: Arrays, feeds: Arrays) -> dict[str, Array]:
        """The vectors that the hidden rows say."""
        kept = {name: array for name, array in outputs.items() if name != self.hidden}
        return kept | self.vectors(outputs[self.hidden], feeds) if self.hidden in outputs else kept

    def vectors(self, hidden: Array, feeds: Arrays) -> dict[str, Array]:
        """The outputs for these rows, computed in float64."""
        valid = self.valid(feeds, *hidden.shape[:2])
        with np.errstate(invalid="ignore"):  # rows of padding may hold anything
            rows = np.where(valid[..., None], hidden.astype(np.float64), 0.0)
        pooled = _POOLINGS[self.pooling](rows, valid)
        vectors = np.where(valid.any(axis=1, keepdims=True), pooled, 0.0)[:, : self.dims]
        if self.normalize == "l2":
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), LEAST_NORM)
        return self._quantized(vectors.astype(hidden.dtype))

    def _quantized(self, vectors: Array) -> dict[str, Array]:
        if self.quantize == "binary":
            return {self.output: np.packbits(vectors > 0, axis=1)}
        if self.quantize == "none":
            return {self.output: vectors}
        wide = vectors.astype(np.float32)
        step = np.maximum(np.abs(wide).max(axis=1, keepdims=True), np.float32(LEAST_NORM)) / np.float32(127)
        return {self.output: np.rint(wide / step).astype(np.int8), self.scale: step}

    def valid(self, feeds: Arrays, batch: int, length: int) -> Array:
        """BOOL ``[batch, tokens]``: which rows count."""
        given = feeds.get(self.source)
        if given is None or self.how == ALL:
            return np.ones((batch, length), np.bool_)
        return given[:, -length:] != 0 if self.how == MASK else first_rows(given) >= 0

    def tolerance(self, name: str, found: Array) -> float:
        """Copies of rows are equal; sums, norms and roundings have an order of their own."""
        if name not in (self.output, self.scale) or found.dtype == np.uint8:
            return 0.0
        if found.dtype == np.int8:
            return ONE_STEP
        copied = self.pooling in ("last", "cls", "max") and self.normalize == "none" and name == self.output
        return 0.0 if copied else HALF if found.dtype.itemsize == 2 else SUMS

    def output_before(self, name: str) -> str:
        """Vectors have the lines of the hidden rows."""
        return self.hidden if name and name in (self.output, self.scale) else name

    def sentence(self) -> str:
        """As people read it."""
        parts = [f"{self.pooling} of the rows that are valid {self.how}", self.source]
        dims = f", the first {self.dims} dimensions" if self.dims else ""
        norm = "" if self.normalize == "none" else f", {self.normalize} norm 1"
        grid = "" if self.quantize == "none" else f", as {self.quantize}"
        return f"pooled: {self.output}: {' '.join(filter(None, parts))} of {self.hidden}{dims}{norm}{grid}"


def _at(rows: Array, index: Array) -> Array:
    return np.take_along_axis(rows, index[:, None, None], axis=1)[:, 0]


def _last(rows: Array, valid: Array) -> Array:
    return _at(rows, valid.shape[1] - 1 - valid[:, ::-1].argmax(axis=1))


def _first(rows: Array, valid: Array) -> Array:
    return _at(rows, valid.argmax(axis=1))


def _mean(rows: Array, valid: Array) -> Array:
    return rows.sum(axis=1) / np.maximum(valid.sum(axis=1, keepdims=True), 1)


def _weighted(rows: Array, valid: Array) -> Array:
    """The n-th valid row counts n times."""
    weights = np.where(valid, np.cumsum(valid, axis=1), 0)
    return (rows * weights[..., None]).sum(axis=1) / np.maximum(weights.sum(axis=1, keepdims=True), 1)


def _max(rows: Array, valid: Array) -> Array:
    return np.where(valid[..., None], rows, -np.inf).max(axis=1)


_POOLINGS: Mapping[str, Callable[[Array, Array], Array]] = {
    "last": _last,
    "cls": _first,
    "mean": _mean,
    "weighted-mean": _weighted,
    "max": _max,
}


@dataclass(frozen=True)
class SelectedWords(Contract):
    """Of the logits only the chosen words' are left, or a score that is made of them.

    Attributes:
        output: The output: ``[batch, rows, words]``, or ``[batch, rows]`` for a score.
        logits: The output that held all logits.
        tokens: The words' ids, in the order of the columns.
        scores: columns, difference (of two words), probability (its sigmoid) or softmax (over the words).
    """

    kind: ClassVar[str] = "selected-words"
    compared: ClassVar[str] = "columns and scores are recomputed from the original's logits"
    unseen: ClassVar[str] = "the logits of every other word: they have left the graph"
    assumes: ClassVar[bool] = True

    output: str = port(Side.AFTER)
    logits: str = port(Side.BEFORE)
    tokens: tuple[int, ...] = ()
    scores: str = "columns"

    def expected(self, outputs: Arrays, feeds: Arrays) -> dict[str, Array]:
        """The columns or scores that the logits say."""
        kept = {name: array for name, array in outputs.items() if name != self.logits}
        if self.logits not in outputs:
            return kept
        columns = np.take(outputs[self.logits], np.asarray(self.tokens), axis=-1)
        return kept | {self.output: _SCORES[self.scores](columns.astype(np.float64)).astype(columns.dtype)}

    def tolerance(self, name: str, found: Array) -> float:
        """A product with fewer columns may sum in another order; a difference is smaller than what it is of."""
        if name != self.output:
            return 0.0
        return HALF if found.dtype.itemsize == 2 else SUMS if self.scores == "columns" else 10 * SUMS

    def stretch(self, name: str, outputs: Arrays, size: float) -> float:
        """A score that is small beside the logits has their error; one of exponents errs by it relative to itself."""
        if name != self.output or self.logits not in outputs or self.scores == "columns":
            return 1.0
        columns = np.take(outputs[self.logits], np.asarray(self.tokens), axis=-1)
        largest = float(np.abs(columns).max(initial=0.0))
        return max(1.0, largest / max(size, LEAST_NORM) if self.scores == "difference" else largest)

    def output_before(self, name: str) -> str:
        """Words have the rows of the logits."""
        return self.logits if name == self.output else name

    def sentence(self) -> str:
        """As people read it."""
        shown = ", ".join(map(str, self.tokens[:SHOWN])) + (", …" if len(self.tokens) > SHOWN else "")
        return f"words: {self.output}: {self.scores} of tokens {shown} of {self.logits}"


def words_left(links: Iterable[Contract]) -> tuple[int, ...] | None:
    """The token that each column of the logits stands for after all contracts; None where every word is left."""
    words: tuple[int, ...] | None = None
    for link in links:
        if isinstance(link, SelectedWords) and link.scores in ("columns", "softmax"):
            words = link.tokens if words is None else tuple(words[column] for column in link.tokens)
    return words


def _softmax(columns: Array) -> Array:
    raised = np.exp(columns - columns.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


_SCORES: Mapping[str, Callable[[Array], Array]] = {
    "columns": lambda columns: columns,
    "difference": lambda columns: columns[..., 0] - columns[..., 1],
    "probability": lambda columns: 1 / (1 + np.exp(columns[..., 1] - columns[..., 0])),
    "softmax": _softmax,
}


@dataclass(frozen=True)
class HiddenTapped(Contract):
    """A new output holds the hidden rows after a layer, which the graph computed before too.

    Attributes:
        output: The output.
        hidden: The value inside that holds the rows; where an operator left it out, the name it would have.
        beside: What that operator gives: its norm.
        place: Which of its outputs the rows are.
        layer: After which layer.
    """

    kind: ClassVar[str] = "hidden-tapped"
    compared: ClassVar[str] = "the rows are read inside the original and compared"

    output: str = port(Side.AFTER)
    hidden: str = ""
    beside: str = ""
    place: int | None = None
    layer: int = 0

    def observed(self) -> tuple[Inner, ...]:
        """The rows."""
        return (Inner(self.hidden, self.beside, self.place or 0, self.layer),)

    def expected(self, outputs: Arrays, feeds: Arrays) -> dict[str, Array]:
        """All that the graph gave, and the rows."""
        return {**outputs, self.output: outputs[self.hidden]} if self.hidden in outputs else dict(outputs)

    def output_before(self, name: str) -> str:
        """The rows as the graph before has them."""
        return self.hidden if name == self.output else name

    def sentence(self) -> str:
        """As people read it."""
        inner = f"{self.hidden}" if not self.beside else f"what is normed to {self.beside}"
        return f"hidden rows: {self.output}: after layer {self.layer}, {inner}"
