"""These rules infer the shapes of layout operations: reshape, slice, concat, split, pad, expand and their kin."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from ...symbolic.dims import Dim, Expr
from . import algebra
from .context import Context, OpKey, ShapeRule, Shapes, normal
from .facts import Shape

ShapeOf = Callable[[Context, ir.Node], "Shape | None"]
FAR = (1 << 31) - 1  # exporters spell "to the end" as the largest 32 or 64 bit integer


def one(function: ShapeOf) -> ShapeRule:
    """A rule for a single output from a function that gives its shape."""

    def rule(ctx: Context, node: ir.Node) -> Shapes:
        return (function(ctx, node),)

    return rule


def reshape_target(ctx: Context, node: ir.Node) -> Shape | None:
    """``Reshape``: 0 copies unless ``allowzero``, -1 takes the rest; only a rank where the target is data."""
    source, target = ctx.shape(node, 0), ctx.items(node, 1)
    if target is None:
        known = ctx.shape(node, 1)
        return tuple(ctx.fresh() for _ in range(known[0])) if known and isinstance(known[0], int) else None
    copies = not ctx.int_attr(node, "allowzero", 0)
    dims: list[Dim] = []
    hole = -1
    for place, item in enumerate(target):
        if item == -1:
            hole = place
            dims.append(1)
        elif item == 0 and copies:
            dims.append(source[place] if source is not None else ctx.fresh())
        else:
            dims.append(item)
    if hole >= 0:
        dims[hole] = rest(ctx, source, tuple(dims))
    return tuple(dims)


def rest(ctx: Context, source: Shape | None, others: Shape) -> Dim:
    """What -1 stands for: the number of elements over the product of the other dimensions."""
    if source is None:
        return ctx.fresh()
    known = list(source)
    kept: list[Dim] = []
    for dim in others:  # the same dimension on both sides cancels
        if dim in known and dim != 0:
            known.remove(dim)
        else:
            kept.append(dim)
    divisor = algebra.product(tuple(kept))
    return ctx.fresh() if divisor == 0 else algebra.floordiv(algebra.product(tuple(known)), divisor)


def flattened(ctx: Context, node: ir.Node) -> Shape | None:
    """``Flatten`` into two dimensions."""
    source = ctx.shape(node, 0)
    if source is None:
        return None
    axis = ctx.int_attr(node, "axis", 1)
    axis = axis + len(source) if axis < 0 else axis
    return algebra.product(source[:axis]), algebra.product(source[axis:])


def squeezed(ctx: Context, node: ir.Node) -> Shape | None:
    """``Squeeze``; without axes only where no dimension is a symbol, which might be 1."""
    source, axes = ctx.shape(node, 0), ctx.axes(node, 1)
    if source is None:
        return None
    if axes is None:
        blind = ctx.has(node, 1) or any(isinstance(dim, Expr) for dim in source)
        return None if blind else tuple(dim for dim in source if dim != 1)
    gone = {normal(axis, len(source)) for axis in axes}
    return tuple(dim for place, dim in enumerate(source) if place not in gone)


def unsqueezed(ctx: Context, node: ir.Node) -> Shape | None:
    """``Unsqueeze``; axes count in the result."""
    source, axes = ctx.shape(node, 0), ctx.axes(node, 1)
    if source is None or axes is None:
        return None
    rank = len(source) + len(axes)
    new = {normal(axis, rank) for axis in axes}
    dims = iter(source)
    return tuple(1 if place in new else next(dims) for place in range(rank))


def transposed(ctx: Context, node: ir.Node) -> Shape | None:
    """``Transpose``; the default reverses."""
    source = ctx.shape(node, 0)
    perm = ctx.ints_attr(node, "perm")
    if source is None:
        return None
    return source[::-1] if perm is None else tuple(source[place] for place in perm)


def slice_arguments(ctx: Context, node: ir.Node, rank: int) -> list[tuple[int, Dim, Dim, int]] | None:
    """(axis, start, end, step) of each sliced axis; None where axes or steps are data, or bounds unknown."""
    starts, ends = ctx.items(node, 1), ctx.items(node, 2)
    if starts is None or ends is None:
        return None
    axes = ctx.numbers(node, 3) if ctx.has(node, 3) else tuple(range(len(starts)))
    steps = ctx.numbers(node, 4) if ctx.has(node, 4) else (1,) * len(starts)
    if axes is None or steps is None:
        return None
    return [(normal(a, rank), s, e, p) for a, s, e, p in zip(axes, starts, ends, steps, strict=True)]


def sliced(ctx: Context, node: ir.Node) -> Shape | None:
    """``Slice``; axes that are known to be sliced by unknown bounds get fresh dimensions."""
    source = ctx.shape(node, 0)
    if source is None:
        return None
    dims: list[Dim] = list(source)
    arguments = slice_arguments(ctx, node, len(source))
    if arguments is None:
        axes = ctx.numbers(node, 3) if ctx.has(node, 3) else None
        touched = range(len(source)) if axes is None else [normal(axis, len(source)) for axis in axes]
        for axis in touched:
            dims[axis] = ctx.fresh()
        return tuple(dims)
    for axis, start, end, step in arguments:
        length = slice_length(dims[axis], start, end, step)
        dims[axis] = ctx.fresh() if length is None else length
    return tuple(dims)


def slice_length(size: Dim, start: Dim, end: Dim, step: int) -> Dim | None:
    """The number of elements that ``[start:end:step]`` takes of ``size``; None where signs are not certain."""
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        stop = None if step < 0 and end < -size else end
        return len(range(size)[start:stop:step])
    if step < 0:
        whole = step == -1 and start in (-1, FAR) and isinstance(end, int) and end <= -FAR
        return size if whole else None
    first, last = bound(size, start), bound(size, end)
    if first is None or last is None:
        return None
    taken = algebra.clamped(algebra.sub(last, first))
    return taken if step == 1 else algebra.ceil_div(taken, step)


def bound(size: Dim, place: Dim) -> Dim | None:
    """A slice bound within 0..size: negative ones count from the end."""
    if isinstance(place, int) and place >= FAR:
        return size
    if algebra.at_least(place, 0):
        return algebra.minimum(place, size)
    if algebra.at_least(algebra.sub(-1, place), 0):
        return algebra.clamped(algebra.add(size, place))
    if algebra.add(size, place) == 0:
        return 0  # counted from the end by the whole length: the first element, of none too
    return None


def concatenated(ctx: Context, node: ir.Node) -> Shape | None:
    """``Concat``: the axis adds up; elsewhere the first concrete dimension wins."""
    known = [ctx.shape(node, index) for index in range(len(node.inputs))]
    shapes = [shape for shape in known if shape is not None]
    if not shapes:
        return None
    rank = len(shapes[0])
    axis = normal(ctx.int_attr(node, "axis", 0), rank)
    dims = [next((s[place] for s in shapes if isinstance(s[place], int)), shapes[0][place]) for place in range(rank)]
    total: Dim = 0
    for shape in shapes:
        total = algebra.add(total, shape[axis])
    dims[axis] = total if len(shapes) == len(known) else ctx.fresh()
    return tuple(dims)


def split_sizes(ctx: Context, node: ir.Node, size: Dim) -> tuple[Dim, ...] | None:
    """The parts of ``Split``: given, or equal with a smaller last one."""
    if ctx.has(node, 1):
        return ctx.items(node, 1)
    given = ctx.ints_attr(node, "split")
    if given is not None:
        return given
    count = ctx.int_attr(node, "num_outputs", len(node.outputs))
    if not isinstance(size, int):
        even = all(coeff % count == 0 for _, coeff in size.terms)
        return (algebra.floordiv(size, count),) * count if even else None
    part = -(-size // count)
    return tuple(max(0, min(part, size - part * place)) for place in range(count))


def split(ctx: Context, node: ir.Node) -> Shapes:
    """``Split``: one shape an output."""
    source = ctx.shape(node, 0)
    if source is None:
        return ()
    axis = normal(ctx.int_attr(node, "axis", 0), len(source))
    sizes = split_sizes(ctx, node, source[axis])
    if sizes is None:
        sizes = tuple(ctx.fresh() for _ in node.outputs)
    return [(*source[:axis], size, *source[axis + 1 :]) for size in sizes]


def expanded(ctx: Context, node: ir.Node) -> Shape | None:
    """``Expand``: the broadcast of the input and the target."""
    target = ctx.items(node, 1)
    if target is None:
        source, rank = ctx.shape(node, 0), ctx.shape(node, 1)
        if source is None or not rank or not isinstance(rank[0], int):
            return None
        missing = (1,) * (rank[0] - len(source)) + source
        return tuple(dim if isinstance(dim, int) and dim > 1 else ctx.fresh() for dim in missing)
    return ctx.broadcast(ctx.shape(node, 0), target)


def tiled(ctx: Context, node: ir.Node) -> Shape | None:
    """``Tile``."""
    source, repeats = ctx.shape(node, 0), ctx.items(node, 1)
    if source is None:
        return None
    if repeats is None:
        return tuple(ctx.fresh() for _ in source)
    return tuple(algebra.mul(dim, count) for dim, count in zip(source, repeats, strict=True))


def padded(ctx: Context, node: ir.Node) -> Shape | None:
    """``Pad``: begins and ends of every axis, or of the axes given."""
    source, pads = ctx.shape(node, 0), ctx.items(node, 1)
    if source is None:
        return None
    axes = ctx.numbers(node, 3) if ctx.has(node, 3) else tuple(range(len(source)))
    if pads is None or axes is None:
        return tuple(ctx.fresh() for _ in source)
    dims = list(source)
    for place, axis in enumerate(axes):
        at = normal(axis, len(source))
        dims[at] = algebra.add(dims[at], algebra.add(pads[place], pads[place + len(axes)]))
    return tuple(dims)


def from_content(ctx: Context, node: ir.Node) -> Shape | None:
    """``ConstantOfShape``: the shape is the input's content."""
    target = ctx.items(node, 0)
    if target is not None:
        return target
    rank = ctx.shape(node, 0)
    return tuple(ctx.fresh() for _ in range(rank[0])) if rank and isinstance(rank[0], int) else None


RULES: dict[OpKey, ShapeRule] = {
    ("", "Concat"): one(concatenated),
    ("", "ConstantOfShape"): one(from_content),
    ("", "Expand"): one(expanded),
    ("", "Flatten"): one(flattened),
    ("", "Pad"): one(padded),
    ("", "Reshape"): one(reshape_target),
    ("", "Slice"): one(sliced),
    ("", "Split"): split,
    ("", "Squeeze"): one(squeezed),
    ("", "Tile"): one(tiled),
    ("", "Transpose"): one(transposed),
    ("", "Unsqueeze"): one(unsqueezed),
}
