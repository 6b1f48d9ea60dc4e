"""Draws tokens from logits; what is drawn depends on the seed, the text and the position, not on how K was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.core.errors import UsageError

_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn; a temperature of 0 takes the most likely one.

    Attributes:
        temperature: Divides the logits.
        top_k: Only so many of the most likely tokens; 0 for all.
        top_p: Only the most likely tokens that together have this probability.
        seed: Of the draws.
        min_p: Only tokens that are at least so likely, relative to the likeliest.
        repetition: Divides positive logits of tokens that the text holds, and multiplies the others.
        presence: Is taken off logits of tokens that were generated.
        frequency: Is taken off once for each time that they were.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    min_p: float = 0.0
    repetition: float = 1.0
    presence: float = 0.0
    frequency: float = 0.0

    def __post_init__(self) -> None:
        """UsageError for what is no temperature, count or probability."""
        if not (np.isfinite(self.temperature) and self.temperature >= 0 and self.top_k >= 0 and 0 < self.top_p <= 1):
            found = f"temperature {self.temperature}, top_k {self.top_k}, top_p {self.top_p}"
            raise UsageError("no way to draw", found=found, wanted="temperature >= 0, top_k >= 0, 0 < top_p <= 1")
        sizes = (self.min_p, self.repetition, self.presence, self.frequency)
        if not (np.isfinite(sizes).all() and 0 <= self.min_p <= 1 and self.repetition > 0):
            found = "min_p {}, repetition {}, presence {}, frequency {}".format(*sizes)
            raise UsageError("no way to draw", found=found, wanted="0 <= min_p <= 1, repetition > 0, finite numbers")

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """FLOAT64 ``[vocabulary]``: the distribution that is drawn from."""
        temperature, top_p, min_p = (float(np.float32(x)) for x in (self.temperature, self.top_p, self.min_p))
        scaled = logits.astype(np.float64) / temperature  # float32, as a graph that draws is given it
        weights = np.exp(scaled - scaled.max())
        if self.top_k and self.top_k < weights.size:
            weights[np.argsort(-weights, kind="stable")[self.top_k :]] = 0.0
        weights /= weights.sum()
        out = weights < min_p * weights.max()
        if top_p < 1:
            order = np.argsort(-weights, kind="stable")
            before = np.cumsum(weights[order]) - weights[order]
            out[order[before >= top_p]] = True
        weights[out] = 0.0
        return weights / weights.sum()

    def penalized(self, logits: np.ndarray, prompt: Sequence[int], said: Sequence[int]) -> np.ndarray:
        """FLOAT32 ``[vocabulary]``: the logits behind a prompt and what was said since, as penalties leave them."""
        if self.repetition == 1 and self.presence == 0 and self.frequency == 0:
            return logits
        counts = np.bincount(np.asarray(said, np.int64), minlength=logits.size).astype(np.float32)
        heard = counts > 0
        heard[np.asarray(prompt, np.int64)] = True
        found, factor = logits.astype(np.float32), np.float32(self.repetition)
        found = np.where(heard, np.where(found > 0, found / factor, found * factor), found)
        return found - np.float32(self.presence) * (counts > 0) - np.float32(self.frequency) * counts

    def draw(self, logits: np.ndarray, text: int, position: int) -> int:
        """The token for ``position`` of text number ``text``."""
        if self.greedy:
            return int(logits.argmax())
        edges = np.cumsum(self.probabilities(logits))
        return int(
            min(np.searchsorted(edges, uniform(self.seed, text, position) * edges[-1], side="right"), logits.size - 1)
        )


def uniform(seed: int, text: int, position: int) -> float:
    """A number in [0, 1) that these three alone decide (splitmix64): no generator's state is ever rolled back.

    It has 24 bits, so that float32 holds it: a graph that draws is given the same number.
    """
    state = seed & _MASK
    for part in (text, position):
        state = _mix((state + (part + 1) * 0x9E3779B97F4A7C15) & _MASK)
    return (_mix(state) >> 40) / (1 << 24)


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)
