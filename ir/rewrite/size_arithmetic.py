"""Sizes that are sums and products of symbols are computed in the graph, from inputs whose axes are the symbols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from ..symbolic.dims import Dim, Expr
from .builder import Builder

Anchors = Mapping[str, tuple[ir.Value, int]]
"""For each symbol a value and the axis of it that has this size."""


def emit_sizes(builder: Builder, items: Sequence[Dim], anchors: Anchors, name: str) -> ir.Value:
    """A 1-D int64 value of ``items``.

    Raises:
        KeyError: For a symbol that no anchor holds, or one inside a division.
    """
    parts = [_size(builder, item, anchors, f"{name}/{i}") for i, item in enumerate(items)]
    return parts[0] if len(parts) == 1 else builder.op("Concat", parts, name, {"axis": 0}, (len(parts),))


def _size(builder: Builder, item: Dim, anchors: Anchors, name: str) -> ir.Value:
    if isinstance(item, int):
        return builder.ints([item], str(item))
    if item.is_symbol:
        return builder.dims([anchors[str(item)]], name)
    return builder.share(("size", item), lambda: _sum(builder, item, anchors, name))


def _sum(builder: Builder, item: Expr, anchors: Anchors, name: str) -> ir.Value:
    total, *terms = (_term(builder, mono, factor, anchors, name) for mono, factor in item.terms)
    for term in terms:
        total = builder.op("Add", [total, term], f"{name}/sum", shape=(1,))
    return total


def _term(builder: Builder, mono: tuple[object, ...], coefficient: int, anchors: Anchors, name: str) -> ir.Value:
    factors = [builder.dims([anchors[str(atom)]], name) for atom in mono]
    if coefficient != 1 or not factors:
        factors.append(builder.ints([coefficient], str(coefficient)))
    product = factors[0]
    for factor in factors[1:]:
        product = builder.op("Mul", [product, factor], f"{name}/product", shape=(1,))
    return product


def anchors_of(values: Sequence[ir.Value], dims: Sequence[Sequence[Dim | None]]) -> dict[str, tuple[ir.Value, int]]:
    """The first value and axis that each bare symbol stands on."""
    found: dict[str, tuple[ir.Value, int]] = {}
    for value, shape in zip(values, dims, strict=True):
        for axis, dim in enumerate(shape):
            if isinstance(dim, Expr) and dim.is_symbol:
                found.setdefault(str(dim), (value, axis))
    return found
