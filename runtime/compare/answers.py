"""Two single-shot programs are measured apart by what they answer: cosines of vectors, agreement of rankings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.core.errors import UsageError

TOP = 10  # of NDCG@10
LINES = 512  # of a matrix of pairs that is made at once


@dataclass(frozen=True)
class Agreement:
    """``measures`` by name; ``kind`` is vectors or scores, ``number`` how many, ``groups`` how many rankings."""

    kind: str
    number: int
    groups: int
    measures: dict[str, float]


def compare_answers(a: np.ndarray, b: np.ndarray, groups: Sequence[str] | None = None) -> Agreement:
    """Vectors ``[texts, width]`` by cosine; scores ``[texts]`` by rank within each group (one query's documents).

    Raises UsageError for answers of different shapes, or of none that is measured.
    """
    if a.shape != b.shape:
        raise UsageError("the programs answer with different shapes", found=list(b.shape), wanted=list(a.shape))
    if a.ndim == 1:
        return _scores(a.astype(np.float64), b.astype(np.float64), groups or [""] * len(a))
    if a.ndim == 2:
        return _vectors(a.astype(np.float64), b.astype(np.float64))
    raise UsageError("answers are vectors or scores", found=list(a.shape))


def _vectors(a: np.ndarray, b: np.ndarray) -> Agreement:
    lengths = np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-30)
    cosines = (a * b).sum(axis=1) / lengths
    measures = {"mean cosine": cosines.mean(), "least cosine": cosines.min(), "max |diff|": np.abs(a - b).max()}
    return Agreement("vectors", len(a), 1, {name: float(value) for name, value in measures.items()})


def _scores(a: np.ndarray, b: np.ndarray, groups: Sequence[str]) -> Agreement:
    members: dict[str, list[int]] = {}
    for at, group in enumerate(groups):
        members.setdefault(group, []).append(at)
    ranked = [places for places in members.values() if len(places) > 1]
    measures = {"max |diff|": float(np.abs(a - b).max(initial=0.0))}
    if ranked:
        measures["Kendall tau"] = float(np.mean([kendall(a[places], b[places]) for places in ranked]))
        measures[f"NDCG@{TOP}"] = float(np.mean([ndcg(a[places], b[places]) for places in ranked]))
    return Agreement("scores", len(a), len(ranked), measures)


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b: 1 for the same order, -1 for the reverse; ties in one of the two count against it."""
    agree = left = right = 0.0
    for start in range(0, len(a), LINES):
        x, y = (np.sign(values[start : start + LINES, None] - values[None]) for values in (a, b))
        agree, left, right = agree + (x * y).sum(), left + (x * x).sum(), right + (y * y).sum()
    return float(agree / np.sqrt(left * right)) if left and right else float(left == right)


def ndcg(a: np.ndarray, b: np.ndarray, top: int = TOP) -> float:
    """How good B's first ten are where A's order says how good each is: the last gains 0, the first n - 1, linearly."""
    gains = np.argsort(np.argsort(a, kind="stable"), kind="stable").astype(np.float64)
    worth = 1 / np.log2(np.arange(2, min(top, len(a)) + 2))
    ideal = (np.sort(gains)[::-1][: len(worth)] * worth).sum()
    return float((gains[np.argsort(-b, kind="stable")][: len(worth)] * worth).sum() / ideal) if ideal else 1.0
