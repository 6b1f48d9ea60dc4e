"""The contract on tokens that a graph draws says what its inputs mean, and computes what must come out of logits."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..contract import Array, Arrays, Contract, Side, port

LAST, RANDOM, BITMASKS = "last_accepted_output_tokens", "random_numbers", "token_bitmasks"
NEUTRAL: Mapping[str, tuple[Any, float]] = {  # input -> its type, and what changes nothing: the likeliest token
    LAST: (np.int64, -1),
    "past_repetition_penalty_buffer": (np.bool_, 0),
    "repetition_penalties": (np.float32, 1),
    "past_presence_penalty_buffer": (np.bool_, 0),
    "presence_penalties": (np.float32, 0),
    "past_frequency_penalty_buffer": (np.int32, 0),
    "frequency_penalties": (np.float32, 0),
    "temperatures": (np.float32, 0),
    "top_ks": (np.int32, 0),
    "top_ps": (np.float32, 1),
    "min_ps": (np.float32, 0),
    RANDOM: (np.float32, 0),
    BITMASKS: (np.int32, -1),
}
"""What a graph that draws tokens takes, by the names of QEfficient 1.21 (utils/sampler_utils.py) where it has one."""
ACCEPTED, NEXT, PROBS = "accepted_counts", "last_tokens", "probs"
BATCH, ROWS, TOKENS, LINES = "batch", "rows", "tokens", "lines"
"""Sizes of inputs that a run tells: its texts, its rows of logits, its tokens, and the texts that caches hold."""


@dataclass(frozen=True)
class SampledTokens(Contract):
    """An output holds one drawn token for each row of logits.

    Attributes:
        ids: The output of tokens: ``[batch, rows]``.
        logits: The output that held the logits.
        top_k: From how many of the likeliest a token is drawn at most.
        kinds: What each of ``inputs`` is for: a key of NEUTRAL.
        inputs: The inputs.
        sizes: The shape of each input, a number or one of the words above.
        tokens: The input of token ids.
        rows: How many rows of logits there are; None where all tokens, or ``rows_from``, tell.
        rows_from: The input whose length tells it.
        also: Further outputs.
        also_kinds: What each of them is: a buffer as it leaves, or one of the words ACCEPTED, NEXT, PROBS.
        positions: The input of positions, -1 for padding.
    """

    kind: ClassVar[str] = "sampled-tokens"
    compared: ClassVar[str] = (
        "with temperature 0 each token is the original's likeliest; then, but in clones, tokens of random "
        "temperatures, top_ks, top_ps, min_ps and bitmasks are recomputed from its logits in float64"
    )
    unseen: ClassVar[str] = "penalties, and buffers that hold tokens of earlier runs"
    assumes: ClassVar[bool] = True

    ids: str = port(Side.AFTER)
    logits: str = port(Side.BEFORE)
    top_k: int = 0
    kinds: tuple[str, ...] = ()
    inputs: tuple[str, ...] = port(Side.AFTER, default=())
    sizes: tuple[tuple[int | str, ...], ...] = ()
    tokens: str = port(default="")
    rows: int | None = None
    rows_from: str = port(default="")
    also: tuple[str, ...] = port(Side.AFTER, default=())
    also_kinds: tuple[str, ...] = ()
    positions: str = port(default="")

    def adapt_inputs(self, feeds: Arrays) -> dict[str, Array]:
        """What leaves the likeliest token of each row."""
        return {**feeds, **self.fed(feeds)}

    def fed(self, feeds: Arrays) -> dict[str, Array]:
        """The sampling inputs for a run of the graph before."""
        given = zip(self.inputs, self.kinds, self.shapes(feeds), strict=True)
        return {name: np.full(shape, NEUTRAL[kind][1], NEUTRAL[kind][0]) for name, kind, shape in given}

    def shapes(self, feeds: Arrays) -> list[tuple[int, ...]]:
        """The shape of each input in a run."""
        batch, length = feeds[self.tokens].shape[:2] if self.tokens in feeds else (1, 1)
        told = feeds[self.rows_from].shape[0] if self.rows_from in feeds and self.rows_from != self.tokens else length
        known = {BATCH: batch, LINES: batch, TOKENS: length, ROWS: told if self.rows is None else self.rows}
        return [tuple(size if isinstance(size, int) else known[size] for size in sizes) for sizes in self.sizes]

    def expected(self, outputs: Arrays, feeds: Arrays) -> dict[str, Array]:
        """The tokens that the logits say, for what is fed."""
        kept = {name: array for name, array in outputs.items() if name != self.logits}
        if self.logits not in outputs:
            return kept
        named = dict(zip(self.kinds, self.fed(feeds).values(), strict=True))
        logits = outputs[self.logits]
        shares = drawn_from(logits, named, self.top_k)
        tokens = drawn(shares, named)
        told = self.rows is None and self.rows_from  # the original's rows are others than those that are asked for
        further = [(n, k) for n, k in zip(self.also, self.also_kinds, strict=True) if not told]
        return {**kept, self.ids: tokens, **{n: self._also(kind, tokens, shares, named, feeds) for n, kind in further}}

    def _also(self, kind: str, tokens: Array, shares: Array, named: Arrays, feeds: Arrays) -> Array:
        """A further output for the drawn tokens, in a run that follows none."""
        ids = feeds[self.tokens]
        there = feeds[self.positions] >= 0 if self.positions in feeds else np.ones(ids.shape, np.bool_)
        rows = tokens.shape[1]
        stands: Array = (ids[:, 1:rows] == tokens[:, : rows - 1]) & there[:, 1:rows]
        count: Array = np.cumprod(stands, axis=1).sum(axis=1, keepdims=True)
        if kind in (ACCEPTED, NEXT):
            return count if kind == ACCEPTED else np.take_along_axis(tokens, count, axis=1)
        if kind == PROBS:
            return (shares / shares.sum(-1, keepdims=True)).astype(np.float32)
        buffer = named[kind].copy()
        for line in range(len(ids)) if kind.startswith("past_repetition") and ids.shape[1] > rows else ():
            buffer[line, ids[line][there[line]]] = True
        return buffer

    def tolerance(self, name: str, found: Array) -> float:
        """Probabilities are rounded to float32."""
        return 2e-6 if name in self.also and found.dtype.kind == "f" else 0.0

    def output_before(self, name: str) -> str:
        """Tokens have the rows of the logits."""
        return self.logits if name == self.ids else name

    def sentence(self) -> str:
        """As people read it."""
        return f"logits=sampled: {self.ids}: one of the {self.top_k} likeliest tokens of each row of {self.logits}"


@dataclass(frozen=True)
class DrawnTokens(SampledTokens):
    """The same, fed with temperatures, bounds, penalties and random numbers that change something."""

    def fed(self, feeds: Arrays) -> dict[str, Array]:
        """Random values, the same for the same shapes."""
        found = super().fed(feeds)
        for name, kind in zip(self.inputs, self.kinds, strict=True):
            if kind in _DRAWN:
                shape = found[name].shape
                rng = np.random.default_rng(zlib.crc32(f"{kind}{shape}".encode()))
                found[name] = _DRAWN[kind](rng, shape).astype(NEUTRAL[kind][0])
        return found


_Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]
_DRAWN: Mapping[str, _Draw] = {
    "temperatures": lambda rng, shape: rng.choice([0, 0.5, 1, 2], shape),
    "top_ks": lambda rng, shape: rng.integers(0, 40, shape),
    "top_ps": lambda rng, shape: rng.choice([0.5, 0.9, 1], shape),
    "min_ps": lambda rng, shape: rng.choice([0, 0.05], shape),
    RANDOM: lambda rng, shape: rng.integers(0, 1 << 24, shape) / (1 << 24),
    BITMASKS: lambda rng, shape: rng.integers(-(1 << 31), 1 << 31, shape),
}


def drawn(shares: Array, given: Mapping[str, Array]) -> Array:
    """INT64 ``[batch, rows]``: the tokens that random numbers choose by their ``shares [batch, rows, V]``."""
    edges: Array = np.cumsum(shares, axis=-1)
    chosen: Array = (edges <= given[RANDOM][..., None].astype(np.float64) * edges[..., -1:]).sum(axis=-1)
    return np.where(given["temperatures"] > 0, chosen, shares.argmax(axis=-1))


def drawn_from(logits: Array, given: Mapping[str, Array], top_k: int) -> Array:
    """FLOAT64 ``[batch, rows, V]``: each token's share of a draw; penalties and buffers of earlier runs are none."""
    wide = logits.astype(np.float64)
    if BITMASKS in given:
        wide = np.where(allowed(given[BITMASKS], logits.shape[-1]), wide, -np.inf)
    found = np.zeros(wide.shape)
    for line, row in np.ndindex(found.shape[:2]):
        values = [float(given[kind][line, 0]) for kind in ("temperatures", "top_ks", "top_ps", "min_ps")]
        if values[0] > 0:
            found[line, row] = _shares(wide[line, row], top_k, *values)
        else:
            found[line, row, wide[line, row].argmax()] = 1.0
    return found


def _shares(logits: Array, most: int, temperature: float, top_k: float, top_p: float, min_p: float) -> Array:
    weights = np.exp((logits - logits.max()) / temperature)
    order: Array = np.argsort(-weights, kind="stable")
    count = int(min(top_k, most) if top_k > 0 else most)
    weights[order[count:]] = 0.0
    before = np.cumsum(weights[order]) - weights[order]
    kept = np.ones(weights.size, np.bool_)
    kept[order] = (before < top_p * weights.sum()) | (top_p >= 1)
    return np.where(kept & (weights >= min_p * weights.max()), weights, 0.0)


def allowed(bitmasks: Array, vocabulary: int) -> Array:
    """BOOL ``[…, vocabulary]`` of INT32 words: bit ``j`` of word ``i`` is token ``32 i + j`` (xgrammar 0.1)."""
    bits = (bitmasks[..., None].view(np.uint32) >> np.arange(32, dtype=np.uint32)) & 1
    return bits.reshape(*bitmasks.shape[:-1], -1)[..., :vocabulary] != 0
