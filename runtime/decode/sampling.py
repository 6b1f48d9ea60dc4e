"""Draws tokens from logits; what is drawn depends on the seed, the text and the position, not on how K was chosen."""

from __future__ import annotations

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
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """UsageError for what is no temperature, count or probability."""
        if not (np.isfinite(self.temperature) and self.temperature >= 0 and self.top_k >= 0 and 0 < self.top_p <= 1):
            found = f"temperature {self.temperature}, top_k {self.top_k}, top_p {self.top_p}"
            raise UsageError("no way to draw", found=found, wanted="temperature >= 0, top_k >= 0, 0 < top_p <= 1")

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """FLOAT64 ``[vocabulary]``: the distribution that is drawn from."""
        scaled = logits.astype(np.float64) / self.temperature
        weights = np.exp(scaled - scaled.max())
        if self.top_k and self.top_k < weights.size:
            weights[np.argsort(-weights, kind="stable")[self.top_k :]] = 0.0
        weights /= weights.sum()
        if self.top_p < 1:
            order = np.argsort(-weights, kind="stable")
            before = np.cumsum(weights[order]) - weights[order]
            weights[order[before >= self.top_p]] = 0.0
            weights /= weights.sum()
        return weights

    def draw(self, logits: np.ndarray, text: int, position: int) -> int:
        """The token for ``position`` of text number ``text``."""
        if self.greedy:
            return int(logits.argmax())
        edges = np.cumsum(self.probabilities(logits))
        return int(
            min(np.searchsorted(edges, uniform(self.seed, text, position) * edges[-1], side="right"), logits.size - 1)
        )


def uniform(seed: int, text: int, position: int) -> float:
    """A number in [0, 1) that these three alone decide (splitmix64): no generator's state is ever rolled back."""
    state = seed & _MASK
    for part in (text, position):
        state = _mix((state + (part + 1) * 0x9E3779B97F4A7C15) & _MASK)
    return (_mix(state) >> 11) / (1 << 53)


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)
