"""Arithmetic over dimensions is remembered, and what is certain about signs is kept (a symbol may be zero)."""

from __future__ import annotations

from functools import lru_cache

from ...symbolic import dims
from ...symbolic.dims import Dim, Expr

MAX_TERMS = 64  # inputs are hostile: an expression beyond these is given up as unknown
MAX_NESTING = 8

_remember = lru_cache(maxsize=1 << 15)


def bounded(dim: Dim) -> Dim:
    """``dim`` itself; ValueError where it outgrew every honest shape."""
    if isinstance(dim, Expr) and (len(dim.terms) > MAX_TERMS or nesting(dim) > MAX_NESTING):
        raise ValueError("expression too large")
    return dim


@_remember
def nesting(dim: Dim) -> int:
    """How deep the opaque operations of an expression lie in each other."""
    if isinstance(dim, int):
        return 0
    calls = (atom for mono, _ in dim.terms for atom in mono if not isinstance(atom, str))
    return max((1 + max(nesting(arg) for arg in call.args) for call in calls), default=0)


@_remember
def add(a: Dim, b: Dim) -> Dim:
    """``a + b``; ValueError where it grows too large, as in all that follows."""
    return bounded(a + b)


@_remember
def sub(a: Dim, b: Dim) -> Dim:
    """``a - b``."""
    return bounded(a - b)


@_remember
def mul(a: Dim, b: Dim) -> Dim:
    """``a * b``."""
    if isinstance(a, Expr) and isinstance(b, Expr) and len(a.terms) * len(b.terms) > MAX_TERMS:
        raise ValueError("expression too large")
    found = bounded(a * b)
    if isinstance(found, Expr) and any(len(mono) > MAX_TERMS for mono, _ in found.terms):
        raise ValueError("expression too large")
    return found


@_remember
def floordiv(a: Dim, b: Dim) -> Dim:
    """``a // b``; ZeroDivisionError for a zero divisor."""
    return bounded(dims.floordiv(a, b))


@_remember
def lower_bound(dim: Dim) -> int | None:
    """The largest integer that ``dim`` is known never to fall below; None where there is none.

    Every symbol is an integer >= 0.
    """
    if isinstance(dim, int):
        return dim
    total = 0
    for mono, coeff in dim.terms:
        if not mono:
            total += coeff
            continue
        low = 1
        for atom in mono:
            bound = 0 if isinstance(atom, str) else _call_bound(atom)
            if bound is None or bound < 0:
                return None
            low *= bound
        if coeff < 0:
            return None
        total += coeff * low
    return total


def _call_bound(call: dims.Call) -> int | None:
    bounds = [lower_bound(arg) for arg in call.args]
    known = [bound for bound in bounds if bound is not None]
    if call.op == "max":
        return max(known, default=None)
    if len(known) < len(bounds):
        return None
    if call.op == "min":
        return min(known)
    return 0 if min(known) >= 0 else None


def at_least(dim: Dim, bound: int) -> bool:
    """Certain that ``dim >= bound``."""
    low = lower_bound(dim)
    return low is not None and low >= bound


@_remember
def maximum(a: Dim, b: Dim) -> Dim:
    """``max(a, b)``, decided where certain."""
    if at_least(sub(a, b), 0):
        return a
    return b if at_least(sub(b, a), 0) else bounded(dims.maximum(a, b))


@_remember
def minimum(a: Dim, b: Dim) -> Dim:
    """``min(a, b)``, decided where certain."""
    if at_least(sub(a, b), 0):
        return b
    return a if at_least(sub(b, a), 0) else bounded(dims.minimum(a, b))


@_remember
def equal(a: Dim, b: Dim) -> bool | None:
    """``a == b``; None where that depends on a symbol."""
    if a == b:
        return True
    difference = sub(a, b)
    if isinstance(difference, int) or at_least(difference, 1) or at_least(sub(b, a), 1):
        return False
    return None


@_remember
def less(a: Dim, b: Dim) -> bool | None:
    """``a < b``; None where that depends on a symbol."""
    if at_least(sub(b, a), 1):
        return True
    return False if at_least(sub(a, b), 0) else None


@_remember
def truncated_div(a: Dim, b: Dim) -> Dim | None:
    """ONNX integer division (towards zero); None where not certain."""
    if b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        quotient = abs(a) // abs(b)
        return quotient if (a < 0) == (b < 0) else -quotient
    if at_least(a, 0) and at_least(b, 0):
        return floordiv(a, b)
    if isinstance(b, int) and isinstance(a, Expr) and all(coeff % b == 0 for _, coeff in a.terms):
        return floordiv(a, b)
    return None


@_remember
def modulo(a: Dim, b: Dim) -> Dim | None:
    """ONNX ``Mod`` without ``fmod`` (the sign of the divisor); None where not certain."""
    if b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    return bounded(dims.mod(a, b)) if at_least(a, 0) and at_least(b, 0) else None


@_remember
def clamped(dim: Dim) -> Dim:
    """``max(dim, 0)``."""
    return maximum(dim, 0)


@_remember
def ceil_div(a: Dim, b: int) -> Dim:
    """``ceil(a / b)`` for a positive ``b``."""
    return floordiv(add(a, b - 1), b)


def product(items: tuple[Dim, ...]) -> Dim:
    """The product; 1 for none."""
    total: Dim = 1
    for item in items:
        total = mul(total, item)
    return total
