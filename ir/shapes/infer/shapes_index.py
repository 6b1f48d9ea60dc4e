"""These rules infer the shapes of operations that take or make indices: gathers, ranges, one-hot, non-zero."""

from __future__ import annotations

import onnx_ir as ir

from ...symbolic.dims import Expr
from . import algebra
from .context import Context, OpKey, ShapeRule, Shapes, normal
from .facts import Shape
from .shapes_layout import one


def gathered(ctx: Context, node: ir.Node) -> Shape | None:
    """``Gather``: the axis gives way to the shape of the indices."""
    source, index = ctx.shape(node, 0), ctx.shape(node, 1)
    if source is None or index is None:
        return None
    axis = normal(ctx.int_attr(node, "axis", 0), len(source))
    return (*source[:axis], *index, *source[axis + 1 :])


def gathered_elements(ctx: Context, node: ir.Node) -> Shape | None:
    """``GatherElements``: the shape of the indices."""
    return ctx.shape(node, 1)


def gathered_nd(ctx: Context, node: ir.Node) -> Shape | None:
    """``GatherND``: the last index dimension is consumed."""
    source, index = ctx.shape(node, 0), ctx.shape(node, 1)
    if source is None or not index or isinstance(index[-1], Expr):
        return None
    return (*index[:-1], *source[ctx.int_attr(node, "batch_dims", 0) + index[-1] :])


def ranged(ctx: Context, node: ir.Node) -> Shape | None:
    """``Range`` over expressions; a fresh length where a bound is data."""
    bounds = [ctx.items(node, index) for index in range(3)]
    if any(not bound for bound in bounds):
        return (ctx.fresh(),)
    start, limit, delta = (bound[0] for bound in bounds if bound)
    span = algebra.sub(limit, start)
    if not isinstance(delta, int) or delta == 0:
        return (ctx.fresh(),)
    if delta < 0:
        span, delta = algebra.sub(0, span), -delta
    return (algebra.clamped(algebra.ceil_div(span, delta)),)


def one_hot(ctx: Context, node: ir.Node) -> Shape | None:
    """``OneHot``: a new axis of the depth."""
    source, depth = ctx.shape(node, 0), ctx.items(node, 1)
    if source is None:
        return None
    axis = normal(ctx.int_attr(node, "axis", -1), len(source) + 1)
    return (*source[:axis], depth[0] if depth else ctx.fresh(), *source[axis:])


def non_zero(ctx: Context, node: ir.Node) -> Shape | None:
    """``NonZero``: the rank by a data-dependent count."""
    source = ctx.shape(node, 0)
    return None if source is None else (max(len(source), 1), ctx.fresh())


def compressed(ctx: Context, node: ir.Node) -> Shape | None:
    """``Compress``: a data-dependent count along the axis."""
    source, axis = ctx.shape(node, 0), ctx.attr(node, "axis")
    if source is None or axis is None:
        return (ctx.fresh(),)
    at = normal(axis, len(source))
    return (*source[:at], ctx.fresh(), *source[at + 1 :])


def shape_vector(ctx: Context, node: ir.Node) -> Shape | None:
    """``Shape`` of a value whose rank alone is unknown gives an unknown length."""
    return (ctx.fresh(),)


def scalar(ctx: Context, node: ir.Node) -> Shapes:
    """``Size``."""
    return ((),)


RULES: dict[OpKey, ShapeRule] = {
    ("", "Compress"): one(compressed),
    ("", "Gather"): one(gathered),
    ("", "GatherElements"): one(gathered_elements),
    ("", "GatherND"): one(gathered_nd),
    ("", "NonZero"): one(non_zero),
    ("", "OneHot"): one(one_hot),
    ("", "Range"): one(ranged),
    ("", "Shape"): one(shape_vector),
    ("", "Size"): scalar,
}
