"""Equal dimensions made one: a solution of linear equations over a graph's symbols, each with the reason it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .dims import Dim, Expr, free_symbols, substitute, symbol

MAX_ROUNDS = 64  # of substituting a solution into itself


@dataclass(frozen=True)
class Equation:
    """Two dimensions that are equal, and why."""

    left: Dim
    right: Dim
    why: str


@dataclass
class Solution:
    """What symbols equal others: each solved one as an expression over those that are left.

    Attributes:
        rank: Which symbol gives way where either could: the one of the larger rank.
        solved: Symbol -> what it equals.
        reasons: Symbol -> the equations that led to it, first the nearest.
        broken: Equations that no sizes can satisfy.
    """

    rank: Callable[[str], tuple[int, ...]]
    solved: dict[str, Dim] = field(default_factory=dict[str, Dim])
    reasons: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    broken: list[Equation] = field(default_factory=list[Equation])

    def reduce(self, dim: Dim) -> Dim:
        """``dim`` over the symbols that are left."""
        for _ in range(MAX_ROUNDS):
            found = substitute(dim, self.solved)
            if found == dim:
                break
            dim = found
        return dim

    def add(self, equation: Equation) -> bool:
        """Takes one equation in; True where it solved a symbol."""
        difference = _minus(self.reduce(equation.left), self.reduce(equation.right))
        if isinstance(difference, int):
            if difference:
                self.broken.append(equation)
            return False
        name = self._solvable(difference)
        if name is None:
            return False
        coefficient = _coefficient(difference, name)
        rest = _minus(difference, symbol(name) * coefficient)
        self.solved[name] = rest if coefficient == -1 else _minus(0, rest)
        chain = [equation.why]
        for used in sorted(free_symbols(equation.left) | free_symbols(equation.right)):
            chain.extend(reason for reason in self.reasons.get(used, ()) if reason not in chain)
        self.reasons[name] = tuple(chain)
        for other in self.solved:
            self.solved[other] = substitute(self.solved[other], {name: self.solved[name]})
        return True

    def _solvable(self, difference: Expr) -> str | None:
        """The symbol of the largest rank that stands alone with a coefficient of one."""
        names = [mono[0] for mono, coeff in difference.terms if len(mono) == 1 and abs(coeff) == 1]
        bare = [name for name in names if isinstance(name, str) and _stands_once(difference, name)]
        return max(bare, key=self.rank, default=None)


def _minus(left: Dim, right: Dim) -> Dim:
    return left - right if isinstance(left, Expr) else -1 * right + left


def _coefficient(dim: Expr, name: str) -> int:
    return next(coeff for mono, coeff in dim.terms if mono == (name,))


def _stands_once(dim: Expr, name: str) -> bool:
    return sum(name in free_symbols(Expr(((mono, coeff),))) for mono, coeff in dim.terms if mono) == 1


def bound_value(dim: Dim, binding: Mapping[str, int]) -> int | None:
    """``dim`` as a number; None where a symbol is unbound or a divisor is zero."""
    try:
        found = substitute(dim, binding)
    except ZeroDivisionError:
        return None
    return found if isinstance(found, int) else None
