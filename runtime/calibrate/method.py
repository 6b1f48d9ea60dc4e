"""Chooses the range worth encoding from a histogram: by percentile, least squared error, or least divergence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

STEPS = 100  # how many narrower ranges are tried
LEVELS = 128  # to how many levels the divergence is computed
Edges = tuple[float, float]
Chooser = Callable[[np.ndarray, np.ndarray, float, int], Edges]


def clip(method: str, counts: np.ndarray, edges: Edges, percentile: float, bits: int) -> Edges:
    """The chosen range, never wider than ``edges``; these themselves where nothing was counted."""
    if not counts.any():
        return edges
    bounds = np.linspace(edges[0], edges[1], len(counts) + 1)
    first, last = _CHOOSERS[method](counts, bounds, percentile, bits)
    return max(first, edges[0]), min(last, edges[1])


def _percentile(counts: np.ndarray, bounds: np.ndarray, percentile: float, bits: int) -> Edges:
    """As many at each end left out as the percentile allows."""
    tail = (1.0 - percentile / 100.0) / 2.0 * counts.sum()
    below = np.cumsum(counts)
    above = np.cumsum(counts[::-1])
    first = bounds[int(np.searchsorted(below, tail, side="right"))]
    last = bounds[len(counts) - int(np.searchsorted(above, tail, side="right"))]
    return float(first), float(last)


def _mse(counts: np.ndarray, bounds: np.ndarray, percentile: float, bits: int) -> Edges:
    """The range whose grid of ``bits`` bits errs least: half a step inside, the whole distance outside."""
    centres = (bounds[:-1] + bounds[1:]) / 2
    total = counts.sum()

    def error(first: float, last: float) -> float:
        step = (last - first) / ((1 << bits) - 1)
        outside = np.maximum(first - centres, 0) + np.maximum(centres - last, 0)
        inside = outside == 0
        return float((counts * (outside**2 + inside * step**2 / 12)).sum() / total)

    return min(_candidates(bounds), key=lambda edges: error(*edges))


def _entropy(counts: np.ndarray, bounds: np.ndarray, percentile: float, bits: int) -> Edges:
    """The range whose coarse histogram diverges least from the fine one, what is cut off put on the edges."""
    best: tuple[float, Edges] | None = None
    width = bounds[1] - bounds[0]
    for first, last in _candidates(bounds):
        low, high = (round((edge - bounds[0]) / width) for edge in (first, last))
        if high - low < LEVELS:
            continue
        divergence = _divergence(counts, low, high)
        if best is None or divergence < best[0]:
            best = divergence, (first, last)
    return best[1] if best is not None else (float(bounds[0]), float(bounds[-1]))


def _divergence(counts: np.ndarray, low: int, high: int) -> float:
    fine = counts[low:high].astype(np.float64)
    fine[0] += counts[:low].sum()
    fine[-1] += counts[high:].sum()
    level = (np.arange(high - low) * LEVELS) // (high - low)
    held = counts[low:high] > 0
    sums = np.bincount(level, weights=counts[low:high], minlength=LEVELS)
    places = np.bincount(level, weights=held, minlength=LEVELS)
    coarse = np.where(held, sums[level] / np.maximum(places[level], 1), 0.0)
    p, q = fine / fine.sum(), coarse / max(coarse.sum(), 1.0)
    used = p > 0
    return float((p[used] * np.log(p[used] / np.maximum(q[used], 1e-12))).sum())


def _candidates(bounds: np.ndarray) -> list[Edges]:
    """The whole range first, then narrower ones; an edge on the near side of 0 stays."""
    first, last = float(bounds[0]), float(bounds[-1])
    shares = [step / STEPS for step in range(STEPS, 0, -1)]
    return [(min(first, 0.0) * share or first, max(last, 0.0) * share or last) for share in shares]


_CHOOSERS: dict[str, Chooser] = {"percentile": _percentile, "mse": _mse, "entropy": _entropy}
