"""A demand relates two dimensions at a node; rules state the demands of an operator."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from ...symbolic.dims import Dim, Expr, free_symbols, substitute
from ..infer import Facts
from ..infer.context import Context

Demanded = tuple["Relation", Dim, Dim]
Rule = Callable[[Context, ir.Node], Iterator[Demanded]]


class Relation(enum.Enum):
    """How two dimensions must relate."""

    EQUAL = "equal"
    BROADCAST = "equal, or one of them 1"
    MULTIPLE = "a multiple of"
    AT_MOST = "at most"

    def holds(self, left: int, right: int) -> bool:
        """Whether two sizes relate so."""
        return _TESTS[self](left, right)


_TESTS: dict[Relation, Callable[[int, int], bool]] = {
    Relation.EQUAL: lambda a, b: a == b,
    Relation.BROADCAST: lambda a, b: a == b or 1 in (a, b),
    Relation.MULTIPLE: lambda a, b: a == 0 if b == 0 else a % b == 0,
    Relation.AT_MOST: lambda a, b: a <= b,
}


@dataclass(frozen=True, eq=False)
class Demand:
    """One demand of one node, the first that makes it.

    Attributes:
        relation: How ``left`` and ``right`` must relate.
        left: A dimension of an input.
        right: What it is held against.
        node: The node that demands it.
        shapes: The shapes of the node's inputs, as expressions; None where unknown.
        calls: The function calls around the node, outermost first.
    """

    relation: Relation
    left: Dim
    right: Dim
    node: ir.Node
    shapes: tuple[tuple[Dim, ...] | None, ...]
    calls: tuple[ir.Node, ...] = ()

    @property
    def place(self) -> str:
        """Where it stands: the node, and the calls that lead to it."""
        chain = [*self.calls, self.node]
        return " in ".join(f"{node.op_type} {node.name or _outputs(node)!r}" for node in reversed(chain))


def _outputs(node: ir.Node) -> str:
    return next((value.name for value in node.outputs if value.name), "")


@dataclass
class Demands:
    """What is left to prove of a graph once its shapes are expressions over its symbols, in the order of the nodes.

    Attributes:
        items: The demands, each pair of dimensions once.
        facts: The shapes and contents of all values of the main graph and its bodies.
        joined: Symbols that stand for the broadcast of two dimensions.
    """

    items: list[Demand]
    facts: Facts
    joined: Mapping[str, tuple[Dim, Dim]] = field(default_factory=dict[str, tuple[Dim, Dim]])

    def value(self, dim: Dim, binding: Mapping[str, int]) -> int | None:
        """The size of ``dim`` under a binding; None where it depends on data or on an unbound symbol."""
        return evaluate(dim, binding, self.joined)


def evaluate(dim: Dim, binding: Mapping[str, int], joined: Mapping[str, tuple[Dim, Dim]], depth: int = 0) -> int | None:
    """``dim`` as a number; symbols of a broadcast are the larger of its two sides. None where it stays open."""
    if isinstance(dim, int):
        return dim
    try:
        found = substitute(dim, binding)
        if isinstance(found, Expr) and depth <= MAX_JOINS:
            found = substitute(found, _sides(found, binding, joined, depth))
    except ZeroDivisionError:
        return None
    return found if isinstance(found, int) else None


def _sides(dim: Expr, binding: Mapping[str, int], joined: Mapping[str, tuple[Dim, Dim]], depth: int) -> dict[str, Dim]:
    """What the broadcasts in ``dim`` come to, as far as both of their sides are known."""
    found: dict[str, Dim] = {}
    for name in sorted(free_symbols(dim) & joined.keys()):
        left, right = (evaluate(side, binding, joined, depth + 1) for side in joined[name])
        if left is not None and right is not None:
            found[name] = right if left == 1 else left if right == 1 else max(left, right)
    return found


MAX_JOINS = 32
