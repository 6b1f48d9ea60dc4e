"""A value reaches values and operators of a main graph; a subgraph's count as the operator that holds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

Point = ir.Value | ir.Node
"""A vertex of the dataflow: values lead to the operators that take them, operators to their results."""


def following(point: Point, outer: Mapping[ir.Node, ir.Node]) -> list[Point]:
    """The next points; ``outer`` gives the holder of a node inside a subgraph, as :func:`scopes.holders` does."""
    if isinstance(point, ir.Node):
        return list(point.outputs)
    return list(dict.fromkeys(outer.get(use.node, use.node) for use in point.uses()))


def reached(starts: Iterable[Point], outer: Mapping[ir.Node, ir.Node]) -> set[Point]:
    """The starts and every point after them."""
    work = list(starts)
    seen = set(work)
    while work:
        new = [point for point in following(work.pop(), outer) if point not in seen]
        seen.update(new)
        work.extend(new)
    return seen
