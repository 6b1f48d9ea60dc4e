"""Chooses the range worth encoding from a histogram: by percentile, least squared error, or least divergence."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..core.encoding import Evidence
from ..core.errors import UnknownNameError
from ..core.histogram import Histogram

STEPS = 100  # how many narrower ranges are tried
LEVELS = 128  # to how many levels the divergence is computed
PERCENTILE = 99.99
METHODS = ("minmax", "percentile", "mse", "entropy")
Edges = tuple[float, float]
Chooser = Callable[[np.ndarray, np.ndarray, float, int, bool], Edges]


def split_method(text: str) -> tuple[str, float]:
    """A method and its percentile, as ``percentile 99.9`` tells them; UnknownNameError for a method there is not."""
    name, _, share = text.partition(" ")
    try:
        kept = float(share) if share else PERCENTILE
    except ValueError:
        kept = -1.0
    if name not in METHODS or not 50.0 <= kept <= 100.0 or (share and name != "percentile"):
        raise UnknownNameError("method", text, METHODS, hint="A percentile is 50 to 100, as in 'percentile 99.9'.")
    return name, kept


def resolve(seen: Evidence, bits: int, *, symmetric: bool = False, method: str = "") -> Evidence:
    """The range that ``method`` (what the evidence says, where empty) chooses for a grid of ``bits`` bits.

    What was seen itself for minmax, and where no histogram was kept.
    """
    chosen = method or seen.method
    if not chosen or chosen == "minmax" or seen.histogram is None or not seen.usable:
        return seen
    first, last = _resolved(seen.histogram, bits, symmetric, chosen)
    held = seen.histogram  # what the range has beyond the histogram is room for masked entries: that stays
    low = first - max(held.first - seen.low, 0.0)
    high = last + max(seen.high - held.last, 0.0)
    return replace(seen, low=low, high=high)


@functools.lru_cache(maxsize=4096)
def _resolved(held: Histogram, bits: int, symmetric: bool, method: str) -> Edges:
    name, percentile = split_method(method)
    return clip(name, held.counts(), (held.first, held.last), percentile, bits, symmetric=symmetric)


def clip(
    method: str, counts: np.ndarray, edges: Edges, percentile: float, bits: int, *, symmetric: bool = False
) -> Edges:
    """The chosen range, never wider than ``edges``; these themselves where nothing was counted."""
    if not counts.any():
        return edges
    bounds = np.linspace(edges[0], edges[1], len(counts) + 1)
    first, last = _CHOOSERS[method](counts, bounds, percentile, bits, symmetric)
    return max(first, edges[0]), min(last, edges[1])


def _percentile(counts: np.ndarray, bounds: np.ndarray, percentile: float, bits: int, symmetric: bool) -> Edges:
    """As many at each end left out as the percentile allows."""
    tail = (1.0 - percentile / 100.0) / 2.0 * float(counts.sum())
    first, last = _behind(counts, tail), len(counts) - _behind(counts[::-1], tail)
    return float(bounds[first]), float(bounds[last])


def _behind(counts: np.ndarray, tail: float) -> int:
    """The first bin up to which more than ``tail`` numbers were counted."""
    return int((np.cumsum(counts) <= tail).sum())


def _mse(counts: np.ndarray, bounds: np.ndarray, percentile: float, bits: int, symmetric: bool) -> Edges:
    """The range whose grid of ``bits`` bits errs least: a twelfth of a step squared inside, the distance outside."""
    held = counts > 0
    centres: np.ndarray = ((bounds[:-1] + bounds[1:]) / 2)[held]
    weights = counts[held].astype(np.float64)
    tried = _candidates(bounds)
    edges: np.ndarray = np.array(tried, np.float64)
    # the grid that will be made: it holds 0, and is the same on both sides where it is symmetric
    low: np.ndarray = np.minimum(edges[:, :1], 0.0)
    high: np.ndarray = np.maximum(edges[:, 1:], 0.0)
    reach = np.maximum(-low, high)
    step = (2.0 * reach if symmetric else high - low) / ((1 << bits) - (2 if symmetric else 1))
    if symmetric:
        low, high = -reach, reach
    outside = np.maximum(low - centres, 0.0) + np.maximum(centres - high, 0.0)
    errors = (weights * (outside**2 + (outside == 0) * step**2 / 12)).sum(axis=1)
    return tried[int(errors.argmin())]


def _entropy(counts: np.ndarray, bounds: np.ndarray, percentile: float, bits: int, symmetric: bool) -> Edges:
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
