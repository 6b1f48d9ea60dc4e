"""Measures by named metrics how far a tensor is from its reference; more metrics can be registered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from ...ir.core.errors import UnknownNameError, UsageError

Metric = Callable[[np.ndarray, np.ndarray], float]


def mean_abs(base: np.ndarray, target: np.ndarray) -> float:
    """The mean of ``|base - target|``."""
    return float(np.abs(base - target).mean())


def max_abs(base: np.ndarray, target: np.ndarray) -> float:
    """The largest ``|base - target|``."""
    return float(np.abs(base - target).max())


def peir(base: np.ndarray, target: np.ndarray) -> float:
    """The largest difference over the reference's own span (peak error to interval ratio); 1 where the span is 0."""
    span = float(base.max() - base.min())
    return max_abs(base, target) / span if span else 1.0


def mse(base: np.ndarray, target: np.ndarray) -> float:
    """The mean squared difference."""
    return float(((base - target) ** 2).mean())


def sqnr(base: np.ndarray, target: np.ndarray) -> float:
    """Signal over error in decibels; infinite where nothing differs."""
    noise = float(((base - target) ** 2).sum())
    signal = float((base**2).sum())
    if noise == 0.0:
        return float("inf")
    return 10.0 * float(np.log10(signal / noise)) if signal else float("-inf")


def kl(base: np.ndarray, target: np.ndarray) -> float:
    """The mean divergence, in nats, of the distributions over the last axis that two arrays of logits mean."""
    p, q = _log_softmax(base), _log_softmax(target)
    return float((np.exp(p) * (p - q)).sum(axis=-1).mean())


def top1(base: np.ndarray, target: np.ndarray) -> float:
    """The share of rows whose largest entry is the same one."""
    return float((base.argmax(axis=-1) == target.argmax(axis=-1)).mean())


METRICS: dict[str, Metric] = {"mean_abs": mean_abs, "max_abs": max_abs, "peir": peir, "mse": mse, "sqnr": sqnr}
"""Measures of any tensor, in the order they are shown."""

LOGIT_METRICS: dict[str, Metric] = {"kl": kl, "top1": top1}
"""Measures that only make sense for logits."""


def add_metric(name: str, metric: Metric) -> None:
    """Adds a measure of any tensor; UsageError where the name is taken."""
    if name in METRICS or name in LOGIT_METRICS:
        raise UsageError("a metric of this name is there already", found=name)
    METRICS[name] = metric


def measure(base: np.ndarray, target: np.ndarray, names: Iterable[str] | None = None) -> dict[str, float]:
    """The named measures (all of ``METRICS`` by default); UsageError where the shapes differ."""
    if base.shape != target.shape:
        raise UsageError("two tensors of different shape cannot be compared", found=f"{base.shape} and {target.shape}")
    known: Mapping[str, Metric] = {**METRICS, **LOGIT_METRICS}
    found: dict[str, float] = {}
    for name in names if names is not None else METRICS:
        if name not in known:
            raise UnknownNameError("metric", name, known)
        found[name] = known[name](base.astype(np.float64), target.astype(np.float64)) if base.size else float("nan")
    return found


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
