"""The table that PR 984 of efficient-transformers publishes, as milliseconds a token and slot, and what bounds it."""

from __future__ import annotations

BATCHES = (1, 2, 4, 8)
# inverted from requests a second: 1 / (prefill + tokens * step / (tokens a step * batch)), 208.5 tokens a request
PLAIN = (33.4, 34.7, 38.1, 48.0)
FIXED = {"ngram": (42.6, 45.8, 51.4, 57.0), "suffix": (35.0, 37.8, 42.5, 46.5)}
VARIABLE = {"ngram": (15.7, 18.2, 25.5, 22.9), "suffix": (14.9, 17.0, 20.9, 25.1)}
# the largest ratio of variable to fixed that the stated mechanism (same proposals, K = 0 costs a plain step) allows
BOUND = {"ngram": (1.84, 1.62, 1.46, 1.25), "suffix": (1.66, 1.46, 1.31, 1.13)}


def gains(proposer: str, at: int) -> tuple[float, float, float]:
    """Published gain of fixed K, of variable K, and the most that variable K can gain given the fixed one."""
    fixed = PLAIN[at] / FIXED[proposer][at]
    return fixed - 1, PLAIN[at] / VARIABLE[proposer][at] - 1, fixed * BOUND[proposer][at] - 1
