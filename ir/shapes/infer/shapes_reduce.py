"""These rules infer the shapes of reductions and normalizations."""

from __future__ import annotations

import onnx_ir as ir

from .context import Context, OpKey, ShapeRule, Shapes, normal
from .facts import Shape
from .shapes_layout import one


def reduced(ctx: Context, node: ir.Node) -> Shape | None:
    """``Reduce*``: axes as input or attribute; none means all, or nothing with ``noop_with_empty_axes``."""
    source, axes = ctx.shape(node, 0), ctx.axes(node, 1)
    if source is None:
        return None
    keep = ctx.int_attr(node, "keepdims", 1)
    if axes is None and ctx.has(node, 1):
        return tuple(ctx.fresh() for _ in source) if keep else None
    if not axes:
        if ctx.int_attr(node, "noop_with_empty_axes", 0):
            return source
        axes = tuple(range(len(source)))
    return without(source, axes, bool(keep))


def without(source: Shape, axes: tuple[int, ...], keep: bool) -> Shape:
    """The shape with axes set to 1, or left out."""
    gone = {normal(axis, len(source)) for axis in axes}
    if keep:
        return tuple(1 if place in gone else dim for place, dim in enumerate(source))
    return tuple(dim for place, dim in enumerate(source) if place not in gone)


def arg_reduced(ctx: Context, node: ir.Node) -> Shape | None:
    """``ArgMax`` and ``ArgMin``."""
    source = ctx.shape(node, 0)
    if source is None:
        return None
    return without(source, (ctx.int_attr(node, "axis", 0),), bool(ctx.int_attr(node, "keepdims", 1)))


def normalized(ctx: Context, node: ir.Node) -> Shapes:
    """``LayerNormalization`` and its kin: the statistics keep the leading axes."""
    source = ctx.shape(node, 0)
    if source is None:
        return ()
    axis = normal(ctx.int_attr(node, "axis", -1), len(source))
    statistics = source[:axis] + (1,) * (len(source) - axis)
    return source, statistics, statistics


def batch_normalized(ctx: Context, node: ir.Node) -> Shapes:
    """``BatchNormalization``: the running statistics keep their own shapes."""
    return ctx.shape(node, 0), ctx.shape(node, 3), ctx.shape(node, 4)


def top_k(ctx: Context, node: ir.Node) -> Shapes:
    """``TopK``: values and indices; k is a number or data."""
    source, count = ctx.shape(node, 0), ctx.items(node, 1)
    if source is None:
        return ()
    axis = normal(ctx.int_attr(node, "axis", -1), len(source))
    shape = (*source[:axis], count[0] if count else ctx.fresh(), *source[axis + 1 :])
    return shape, shape


def pooled(ctx: Context, node: ir.Node) -> Shape | None:
    """``GlobalAveragePool`` and its kin."""
    source = ctx.shape(node, 0)
    return None if source is None else source[:2] + (1,) * (len(source) - 2)


REDUCTIONS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]

RULES: dict[OpKey, ShapeRule] = {
    **{("", f"Reduce{name}"): one(reduced) for name in REDUCTIONS},
    ("", "ArgMax"): one(arg_reduced),
    ("", "ArgMin"): one(arg_reduced),
    ("", "BatchNormalization"): batch_normalized,
    ("", "GlobalAveragePool"): one(pooled),
    ("", "GlobalMaxPool"): one(pooled),
    ("", "LayerNormalization"): normalized,
    ("", "SimplifiedLayerNormalization"): normalized,  # onnxruntime writes it without its domain
    ("", "TopK"): top_k,
}
