"""Branches are swept with the outer facts, loops with nothing but what does not change."""

from __future__ import annotations

import onnx_ir as ir

from ...symbolic.dims import Dim
from .context import Context, OpKey, ShapeRule, Shapes
from .facts import Shape


def branches(ctx: Context, node: ir.Node) -> Shapes:
    """``If``: both branches; a dimension on which they differ is fresh."""
    found: list[list[Shape | None]] = []
    for name in ("then_branch", "else_branch"):
        graph = ctx.attr(node, name)
        ctx.sweep(ctx, graph)
        found.append([ctx.shapes.get(value) for value in graph.outputs])
    return [merged(ctx, a, b) for a, b in zip(*found, strict=True)]


def merged(ctx: Context, a: Shape | None, b: Shape | None) -> Shape | None:
    """What holds of both shapes."""
    if a is None or b is None or len(a) != len(b):
        return None
    return tuple(x if x == y else ctx.fresh() for x, y in zip(a, b, strict=True))


def loop(ctx: Context, node: ir.Node) -> Shapes:
    """``Loop`` and ``Scan``: the body is swept knowing the static sizes it declares; outputs stay unknown."""
    graph = ctx.attr(node, "body")
    for value in graph.inputs:
        if value.shape is not None:
            dims: list[Dim] = [dim if isinstance(dim, int) and dim >= 0 else ctx.fresh() for dim in value.shape]
            ctx.shapes[value] = tuple(dims)
    ctx.sweep(ctx, graph)
    return ()


RULES: dict[OpKey, ShapeRule] = {
    ("", "If"): branches,
    ("", "Loop"): loop,
    ("", "Scan"): loop,
}
