"""Exact integer arithmetic over symbols, in one canonical form: polynomials, and atoms for what they cannot hold.

A symbol may be zero (a past of length 0), unlike in sympy's positive integers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple, Union

from ..core.errors import OnnxPassesError

Dim = Union[int, "Expr"]
Atom = Union[str, "Call"]
Monomial = tuple[Atom, ...]


MAX_TERMS = 64  # of a product that is multiplied out; honest dimensions have fewer than ten
MAX_SUM = 1024
MAX_DEGREE = 64


class DimensionTooLarge(OnnxPassesError, ValueError):
    """A dimension's expression that would not end: inputs are hostile, and sums multiply out to powers of two."""


class Call(NamedTuple):
    """An operation that polynomials cannot hold: floor division, modulo, min, max; arguments canonical."""

    op: str
    args: tuple[Dim, ...]

    def __str__(self) -> str:
        if self.op in ("//", "%"):
            left, right = (f"({a})" if isinstance(a, Expr) and not a.is_symbol else str(a) for a in self.args)
            return f"{left} {self.op} {right}"
        return f"{self.op}({', '.join(map(str, self.args))})"


class Expr:
    """A polynomial with integer coefficients over symbols and :class:`Call` atoms; immutable, never constant."""

    __slots__ = ("_hash", "terms")

    terms: tuple[tuple[Monomial, int], ...]

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self._hash = hash(terms)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expr) and self.terms == other.terms

    @property
    def is_symbol(self) -> bool:
        """True for one bare symbol."""
        return (
            len(self.terms) == 1
            and self.terms[0][1] == 1
            and len(self.terms[0][0]) == 1
            and isinstance(self.terms[0][0][0], str)
        )

    def __add__(self, other: Dim) -> Dim:
        return _combine(self, other, 1)

    __radd__ = __add__

    def __sub__(self, other: Dim) -> Dim:
        return _combine(self, other, -1)

    def __rsub__(self, other: Dim) -> Dim:
        return _combine(-1 * self, other, 1)

    def __mul__(self, other: Dim) -> Dim:
        if len(self.terms) * len(_terms(other)) > MAX_TERMS:
            raise _too_large(f"a product of {len(self.terms)} and {len(_terms(other))} terms", MAX_TERMS)
        product: dict[Monomial, int] = {}
        for mono_a, coeff_a in self.terms:
            for mono_b, coeff_b in _terms(other):
                mono = tuple(sorted(mono_a + mono_b, key=_atom_key))
                product[mono] = product.get(mono, 0) + coeff_a * coeff_b
        return _build(product)

    __rmul__ = __mul__

    def __neg__(self) -> Dim:
        return self * -1

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __mod__(self, other: Dim) -> Dim:
        return mod(self, other)

    def __str__(self) -> str:
        text = ""
        # negative terms last, constants last: "past + seq - 1"
        for mono, coeff in sorted(self.terms, key=lambda t: (not t[0], t[1] < 0)):
            factors = [
                f"({a})"
                if isinstance(a, Call) and a.op in ("//", "%") and (abs(coeff) != 1 or len(mono) > 1)
                else str(a)
                for a in mono
            ]
            body = "*".join(([str(abs(coeff))] if abs(coeff) != 1 or not mono else []) + factors)
            text += (" - " if coeff < 0 else " + ") + body if text else ("-" if coeff < 0 else "") + body
        return text

    def __repr__(self) -> str:
        return f"Expr({self})"


def symbol(name: str) -> Expr:
    """The expression that is just the symbol ``name``."""
    return Expr((((name,), 1),))


def floordiv(a: Dim, b: Dim) -> Dim:
    """``a // b`` (floor); exact where ``b`` divides every coefficient, else an opaque atom.

    Raises ZeroDivisionError for a zero divisor.
    """
    if b == 0:
        raise ZeroDivisionError("dimension divided by zero")
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if b == 1:
        return a
    if a == b:
        return 1
    if isinstance(b, int) and all(coeff % b == 0 for _, coeff in _terms(a)):
        return _build({mono: coeff // b for mono, coeff in _terms(a)})
    quotient = _divide_by_monomial(a, b)
    return quotient if quotient is not None else _call("//", a, b)


def mod(a: Dim, b: Dim) -> Dim:
    """``a % b`` with the sign of ``b``; 0 where ``b`` divides every coefficient."""
    if b == 0:
        raise ZeroDivisionError("dimension modulo zero")
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    if b in (1, a) or (isinstance(b, int) and all(coeff % b == 0 for _, coeff in _terms(a))):
        return 0
    return _call("%", a, b)


def maximum(a: Dim, b: Dim) -> Dim:
    """The larger of two dimensions; opaque where that depends on a symbol."""
    if a == b:
        return a
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else _call("max", a, b)


def minimum(a: Dim, b: Dim) -> Dim:
    """The smaller of two dimensions; opaque where that depends on a symbol."""
    if a == b:
        return a
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else _call("min", a, b)


def free_symbols(dim: Dim | None) -> frozenset[str]:
    """The names of all symbols in ``dim``; empty for integers and unknown dimensions."""
    return _free(dim) if isinstance(dim, Expr) else frozenset()


def substitute(dim: Dim, binding: Mapping[str, Dim]) -> Dim:
    """``dim`` with symbols replaced by integers or other expressions.

    >>> str(substitute(symbol("past") + symbol("seq"), {"past": 0}))
    'seq'
    """
    if isinstance(dim, int) or not (_free(dim) & binding.keys()):
        return dim
    total: Dim = 0
    for mono, coeff in dim.terms:
        product: Dim = coeff
        for atom in mono:
            product = product * _substitute_atom(atom, binding)
        total = total + product
    return total


def _terms(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    return dim.terms if isinstance(dim, Expr) else (((), dim),)


def _combine(a: Dim, b: Dim, sign: int) -> Dim:
    total = dict(_terms(a))
    for mono, coeff in _terms(b):
        total[mono] = total.get(mono, 0) + sign * coeff
    return _build(total)


def _build(terms: Mapping[Monomial, int]) -> Dim:
    kept = [(mono, coeff) for mono, coeff in terms.items() if coeff]
    if not kept:
        return 0
    if len(kept) == 1 and not kept[0][0]:
        return kept[0][1]
    if len(kept) > MAX_SUM:
        raise _too_large(f"a sum of {len(kept)} terms", MAX_SUM)
    degree = max(len(mono) for mono, _ in kept)
    if degree > MAX_DEGREE:
        raise _too_large(f"a product of {degree} symbols", MAX_DEGREE)
    return Expr(tuple(sorted(kept, key=lambda t: tuple(map(_atom_key, t[0])))))


def _too_large(found: str, most: int) -> DimensionTooLarge:
    return DimensionTooLarge(
        "a dimension's expression is too large", found=found, wanted=f"at most {most}",
        hint="Give the dimension a name of its own in the export.",
    )  # fmt: skip


def _atom_key(atom: Atom) -> tuple[int, str]:
    return (0, atom) if isinstance(atom, str) else (1, str(atom))


def _call(op: str, *args: Dim) -> Expr:
    return Expr((((Call(op, args),), 1),))


def _divide_by_monomial(a: Dim, b: Dim) -> Dim | None:
    """``(c·x·y) // (d·x)`` where every term of ``a`` holds the single monomial of ``b``; None where it does not."""
    terms = _terms(b)
    if len(terms) != 1:
        return None
    mono_b, coeff_b = terms[0]
    quotient: dict[Monomial, int] = {}
    for mono, coeff in _terms(a):
        rest = list(mono)
        for atom in mono_b:
            if atom not in rest:
                return None
            rest.remove(atom)
        if coeff % coeff_b:
            return None
        quotient[tuple(rest)] = coeff // coeff_b
    return _build(quotient)


@functools.lru_cache(maxsize=65536)
def _free(expr: Expr) -> frozenset[str]:
    names: set[str] = set()
    for mono, _ in expr.terms:
        for atom in mono:
            if isinstance(atom, str):
                names.add(atom)
            else:
                names.update(*(free_symbols(arg) for arg in atom.args))
    return frozenset(names)


def _substitute_atom(atom: Atom, binding: Mapping[str, Dim]) -> Dim:
    if isinstance(atom, str):
        return binding.get(atom, symbol(atom))
    args = [substitute(arg, binding) for arg in atom.args]
    return _REBUILD[atom.op](*args)


_REBUILD: dict[str, Callable[[Dim, Dim], Dim]] = {"//": floordiv, "%": mod, "max": maximum, "min": minimum}
