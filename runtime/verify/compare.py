"""Compares two arrays: bit for bit, or within a tolerance of the largest value; NaN equals NaN only."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Difference:
    """How two outputs of one name differ; ``equal`` is the verdict.

    ``max_rel`` is the largest difference over the largest magnitude of the original. ``nans`` counts places where only
    one of the two is NaN; ``first`` is the first index that breaks the rule. ``integers`` tells outputs that hold such.
    """

    output: str
    equal: bool
    max_abs: float = 0.0
    max_rel: float = 0.0
    nans: int = 0
    first: tuple[int, ...] | None = None
    why: str = ""
    integers: bool = False


def compare(output: str, original: np.ndarray, result: np.ndarray, tolerance: float = 0.0) -> Difference:
    """Close means ``max|a-b| <= tolerance * max|a|``, so the same values for 0; NaN only where both are NaN."""
    if original.shape != result.shape:
        why = f"shape {list(result.shape)} where the original has {list(original.shape)}"
        return Difference(output, equal=False, max_abs=float("inf"), max_rel=float("inf"), why=why)
    if original.dtype != result.dtype:
        why = f"element type {result.dtype} where the original has {original.dtype}"
        return Difference(output, equal=False, max_abs=float("inf"), max_rel=float("inf"), why=why)
    if original.size and original.dtype.kind in "iufb" and bool((original == result).all()):
        # most are: nothing wide is made of them
        return Difference(output, True, integers=original.dtype.kind in "iu")
    if original.size == 0 or not np.issubdtype(_wide(original).dtype, np.number):
        return _exact(output, original, result)
    found = _numeric(output, _wide(original), _wide(result), tolerance)
    return replace(found, integers=original.dtype.kind in "iu")


def ulp_tolerance(array: np.ndarray) -> float:
    """One unit in the last place of the largest value, relative to it; 0 for other types than float16 and bfloat16."""
    bits = {"float16": 10, "bfloat16": 7}.get(array.dtype.name)
    values = np.abs(array.astype(np.float64)) if bits is not None else np.zeros(0)
    largest = float(values[np.isfinite(values)].max(initial=0.0))
    return 2.0 ** (math.floor(math.log2(largest)) - bits) / largest if bits is not None and largest else 0.0


def _wide(array: np.ndarray) -> np.ndarray:
    """Booleans and small floats in a type that subtracts well."""
    if array.dtype.kind in "iu":
        return array
    with np.errstate(invalid="ignore"):  # NaN of a small float
        return array.astype(np.float64) if array.dtype.kind in "fbV" else array


def _exact(output: str, original: np.ndarray, result: np.ndarray) -> Difference:
    wrong = original != result
    return Difference(output, equal=not wrong.any(), first=_first(wrong), why="values differ" if wrong.any() else "")


def _numeric(output: str, a: np.ndarray, b: np.ndarray, tolerance: float) -> Difference:
    lone_nan = np.isnan(a) != np.isnan(b)
    with np.errstate(invalid="ignore", over="ignore"):
        # equal infinities differ by nothing
        gap = np.where((a == b) | np.isnan(a) | np.isnan(b), 0.0, np.abs(a.astype(np.float64) - b.astype(np.float64)))
    exact = (a != b) & ~(np.isnan(a) & np.isnan(b))  # integers too large for a float keep their last digit
    finite = np.abs(a[np.isfinite(a)])
    scale = float(finite.max()) if finite.size else 0.0
    largest = float(gap.max())
    wrong = lone_nan | (gap > tolerance * scale) if tolerance else exact
    relative = largest / scale if scale else (float("inf") if largest else 0.0)
    why = "NaN in one of the two" if lone_nan.any() else "values differ" if wrong.any() else ""
    return Difference(output, not wrong.any(), largest, relative, int(lone_nan.sum()), _first(wrong), why)


def _first(wrong: np.ndarray) -> tuple[int, ...] | None:
    if not wrong.any():
        return None
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
