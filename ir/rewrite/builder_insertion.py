"""Emits nodes at the head of a graph, or right before a node of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ..symbolic.dims import Dim, Expr
from .builder import Head, Source


@dataclass
class Site(Head):
    """A :class:`Head` that also puts nodes beside a node; what goes to the head keeps the order of its emission."""

    _last: ir.Node | None = field(default=None)

    def place(self) -> None:
        """Puts what was emitted at the head, behind what was put there before."""
        nodes, self._nodes = self._nodes, []
        if not nodes:
            return
        if self._last is not None:
            self.graph.insert_after(self._last, nodes)
        else:
            self._nodes = nodes
            super().place()
        self._last = nodes[-1]

    def place_before(self, anchor: ir.Node) -> None:
        """Puts what was emitted before ``anchor``."""
        nodes, self._nodes = self._nodes, []
        if nodes:
            self.graph.insert_before(anchor, nodes)

    def place_after(self, anchor: ir.Node) -> None:
        """Puts what was emitted after ``anchor``."""
        nodes, self._nodes = self._nodes, []
        if nodes:
            self.graph.insert_after(anchor, nodes)

    def scalar(self, source: Source, name: str) -> ir.Value:
        """One dimension as an int64 scalar: what Range takes on every runtime."""
        if isinstance(source, int):
            return self.ints(source, name)
        key = ("scalar", id(source[0]), source[1])
        if key not in self._memo:
            self._memo[key] = self.op("Squeeze", [self.dims([source], name), self.ints([0], "first")], name, shape=())
        return self._memo[key]

    def count(self, source: Source, name: str) -> ir.Value:
        """``0 … source - 1`` as int64."""
        if isinstance(source, int):
            return self.ints(list(range(source)), name)
        key = ("count", id(source[0]), source[1])
        if key not in self._memo:
            operands = [self.ints(0, "zero"), self.scalar(source, f"{name}/limit"), self.ints(1, "one")]
            self._memo[key] = self.op("Range", operands, name)
        return self._memo[key]

    def cast(self, value: ir.Value, dtype: ir.DataType, name: str) -> ir.Value:
        """``value`` as ``dtype``; itself where it is that already."""
        return value if value.dtype == dtype else self.op("Cast", [value], name, {"to": int(dtype)}, dtype=dtype)

    def unsqueeze(self, value: ir.Value, axes: Sequence[int], name: str) -> ir.Value:
        """``value`` with new axes of one; itself where there are none."""
        if not axes:
            return value
        key = ("unsqueeze", id(value), tuple(axes))
        if key not in self._memo:
            operands = [value, self.ints(list(axes), "axes_" + "_".join(map(str, axes)))]
            self._memo[key] = self.op("Unsqueeze", operands, name, dtype=value.dtype or ir.DataType.INT64)
        return self._memo[key]

    def measure(self, items: Sequence[Dim], anchors: dict[str, tuple[ir.Value, int]], name: str) -> ir.Value:
        """A 1-D int64 value of ``items``; sums and products of symbols are computed from ``anchors``.

        Raises KeyError for a symbol that no anchor holds, or one inside a division.
        """
        parts = [self._item(item, anchors, f"{name}/{i}") for i, item in enumerate(items)]
        return parts[0] if len(parts) == 1 else self.op("Concat", parts, name, {"axis": 0}, (len(parts),))

    def _item(self, item: Dim, anchors: dict[str, tuple[ir.Value, int]], name: str) -> ir.Value:
        if isinstance(item, int):
            return self.ints([item], str(item))
        if item.is_symbol:
            return self.dims([anchors[str(item)]], name)
        key = ("item", item)
        if key not in self._memo:
            terms = [self._term(mono, coefficient, anchors, name) for mono, coefficient in item.terms]
            total = terms[0]
            for term in terms[1:]:
                total = self.op("Add", [total, term], f"{name}/sum", shape=(1,))
            self._memo[key] = total
        return self._memo[key]

    def _term(
        self, mono: tuple[object, ...], coefficient: int, anchors: dict[str, tuple[ir.Value, int]], name: str
    ) -> ir.Value:
        factors = [self.dims([anchors[str(atom)]], name) for atom in mono]
        if coefficient != 1 or not factors:
            factors.append(self.ints([coefficient], str(coefficient)))
        product = factors[0]
        for factor in factors[1:]:
            product = self.op("Mul", [product, factor], f"{name}/product", shape=(1,))
        return product


def anchors_of(values: Sequence[ir.Value], dims: Sequence[Sequence[Dim | None]]) -> dict[str, tuple[ir.Value, int]]:
    """The first value and axis that each bare symbol stands on."""
    found: dict[str, tuple[ir.Value, int]] = {}
    for value, shape in zip(values, dims, strict=True):
        for axis, dim in enumerate(shape):
            if isinstance(dim, Expr) and dim.is_symbol:
                found.setdefault(str(dim), (value, axis))
    return found
