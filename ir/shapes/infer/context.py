"""A rule sees the facts so far, a node's attributes, fresh symbols, and broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from ...symbolic.dims import Dim, Expr, symbol
from .facts import Clash, Facts, IntTensor, Shape

Shapes = Sequence[Shape | None]
ShapeRule = Callable[["Context", ir.Node], Shapes]
IntRule = Callable[["Context", ir.Node], Sequence[IntTensor | None]]
OpKey = tuple[str, str]


class Context:
    """The state of one sweep.

    ``call`` holds the attributes of the function call being swept, ``sweep`` enters a subgraph.
    """

    def __init__(
        self,
        facts: Facts,
        sweep: Callable[[Context, ir.Graph], None],
        call: Mapping[str, ir.Attr] | None = None,
        counter: list[int] | None = None,
    ) -> None:
        self.facts = facts
        self.shapes = facts.shapes
        self.contents = facts.contents
        self.sweep = sweep
        self.call = call or {}
        self.counter = counter if counter is not None else [0]
        self.joined: dict[tuple[Dim, Dim], Dim] = {}
        self.broadcasts: dict[tuple[Shape, Shape], Shape] = {}

    def shape(self, node: ir.Node, index: int) -> Shape | None:
        """The shape of an input; None where it is absent or unknown."""
        inputs = node.inputs
        value = inputs[index] if index < len(inputs) else None
        return self.shapes.get(value) if value is not None else None

    def ints(self, node: ir.Node, index: int) -> IntTensor | None:
        """The content of an input; None where it is absent or unknown."""
        inputs = node.inputs
        value = inputs[index] if index < len(inputs) else None
        return self.contents.get(value) if value is not None else None

    def items(self, node: ir.Node, index: int) -> tuple[Dim, ...] | None:
        """The content of an input as a flat tuple of dimensions."""
        tensor = self.ints(node, index)
        return None if tensor is None else tensor.items

    def numbers(self, node: ir.Node, index: int) -> tuple[int, ...] | None:
        """The content of an input as integers; None where any is symbolic."""
        items = self.items(node, index)
        if items is None or any(isinstance(item, Expr) for item in items):
            return None
        return tuple(int(item) for item in items if not isinstance(item, Expr))

    def has(self, node: ir.Node, index: int) -> bool:
        """True where the optional input is given."""
        inputs = node.inputs
        return index < len(inputs) and inputs[index] is not None

    def attr(self, node: ir.Node, name: str) -> Any:
        """The raw value of an attribute, through a function call's reference; None where absent."""
        found = node.attributes.data.get(name)
        if found is not None and found.ref_attr_name is not None:
            found = self.call.get(found.ref_attr_name)
        return None if found is None else found.value

    def int_attr(self, node: ir.Node, name: str, default: int) -> int:
        """An integer attribute."""
        found = self.attr(node, name)
        return default if found is None else int(found)

    def ints_attr(self, node: ir.Node, name: str) -> tuple[int, ...] | None:
        """An integer list attribute."""
        found = self.attr(node, name)
        return None if found is None else tuple(found)

    def axes(self, node: ir.Node, index: int) -> tuple[int, ...] | None:
        """Axes given as an input (new opsets) or as the attribute ``axes`` (old ones); None where unknown or absent."""
        return self.numbers(node, index) if self.has(node, index) else self.ints_attr(node, "axes")

    def fresh(self) -> Expr:
        """A symbol that equals nothing but itself: a data-dependent or unknown dimension."""
        self.counter[0] += 1
        return symbol(f"?{self.counter[0]}")

    def join(self, a: Dim, b: Dim) -> Dim:
        """The broadcast of two dimensions; a symbol against another symbol is a new one, the same for the same pair."""
        if b in (a, 1):
            return a
        if a == 1:
            return b
        if isinstance(a, int) or isinstance(b, int):
            return a if isinstance(a, int) else b
        if (a, b) not in self.joined:
            self.joined[a, b] = self.joined[b, a] = self.fresh()
        return self.joined[a, b]

    def broadcast(self, a: Shape | None, b: Shape | None) -> Shape | None:
        """The multidirectional broadcast of two shapes."""
        if a is None or b is None:
            return None
        if a == b:
            return a
        found = self.broadcasts.get((a, b))
        if found is None:
            found = self.broadcasts[a, b] = self._broadcast(a, b)
        return found

    def _broadcast(self, a: Shape, b: Shape) -> Shape:
        rank = max(len(a), len(b))
        left = (1,) * (rank - len(a)) + a
        right = (1,) * (rank - len(b)) + b
        return tuple(self.join(x, y) for x, y in zip(left, right, strict=True))

    def clash(self, node: ir.Node | None, value: ir.Value, expected: object, got: object) -> None:
        """Records a contradiction; nothing is raised."""
        self.facts.clashes.append(Clash(node, value, expected, got))


def normal(axis: int, rank: int) -> int:
    """A negative axis counted from the end; IndexError where it lies outside."""
    found = axis + rank if axis < 0 else axis
    if not 0 <= found < max(rank, 1):
        raise IndexError(f"axis {axis} of rank {rank}")
    return found
