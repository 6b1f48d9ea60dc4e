"""Layout operations on integer content choose places."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from .algebra import equal
from .context import Context, IntRule, OpKey, normal
from .facts import MAX_ITEMS, IntTensor, Shape
from .shapes_layout import flattened, reshape_target, slice_arguments, split_sizes, squeezed, unsqueezed

Places = np.ndarray  # where each item of the result comes from
Move = Callable[[Context, ir.Node, Places], Places | None]


def moved(move: Move) -> IntRule:
    """A rule from a choice of places in the first input."""

    def rule(ctx: Context, node: ir.Node) -> list[IntTensor | None]:
        tensor = ctx.ints(node, 0)
        if tensor is None:
            return []
        places = move(ctx, node, np.arange(len(tensor.items)).reshape(tensor.shape))
        return [] if places is None else [picked(tensor, places)]

    return rule


def picked(tensor: IntTensor, places: Places) -> IntTensor:
    """The items at ``places``; ValueError beyond what counts as small."""
    if places.size > MAX_ITEMS:
        raise ValueError("too large")
    order: list[int] = places.ravel().tolist()
    return IntTensor(tuple(places.shape), tuple(tensor.items[place] for place in order), tensor.dtype)


def reshaped(target: Callable[[Context, ir.Node], Shape | None]) -> IntRule:
    """A rule for an operation that keeps the items in order."""

    def rule(ctx: Context, node: ir.Node) -> list[IntTensor | None]:
        tensor = ctx.ints(node, 0)
        shape = None if tensor is None else target(ctx, node)
        if tensor is None or shape is None:
            return []
        sizes = tuple(dim for dim in shape if isinstance(dim, int))
        if len(sizes) < len(shape) or math.prod(sizes) != len(tensor.items):
            return []
        return [IntTensor(sizes, tensor.items, tensor.dtype)]

    return rule


def gather(ctx: Context, node: ir.Node) -> list[IntTensor | None]:
    """``Gather`` with concrete indices."""
    tensor, index = ctx.ints(node, 0), ctx.ints(node, 1)
    numbers = ctx.numbers(node, 1)
    if tensor is None or index is None or numbers is None:
        return []
    axis = normal(ctx.int_attr(node, "axis", 0), len(tensor.shape))
    if len(tensor.shape) == 1:
        return [IntTensor(index.shape, tuple(tensor.items[number] for number in numbers), tensor.dtype)]
    places = np.arange(len(tensor.items)).reshape(tensor.shape)
    return [picked(tensor, np.take(places, np.array(numbers, np.int64).reshape(index.shape), axis=axis))]


def gather_elements(ctx: Context, node: ir.Node) -> list[IntTensor | None]:
    """``GatherElements`` with concrete indices."""
    tensor, index = ctx.ints(node, 0), ctx.ints(node, 1)
    numbers = ctx.numbers(node, 1)
    if tensor is None or index is None or numbers is None:
        return []
    axis = normal(ctx.int_attr(node, "axis", 0), len(tensor.shape))
    where = np.array(numbers, np.int64).reshape(index.shape)
    return [picked(tensor, np.take_along_axis(np.arange(len(tensor.items)).reshape(tensor.shape), where, axis))]


def slice_move(ctx: Context, node: ir.Node, places: Places) -> Places | None:
    """``Slice`` with concrete bounds."""
    chosen: list[slice] = [slice(None)] * places.ndim
    arguments = slice_arguments(ctx, node, places.ndim)
    if arguments is None:
        return None
    for axis, start, end, step in arguments:
        if not isinstance(start, int) or not isinstance(end, int):
            return None
        size = places.shape[axis]
        stop = None if step < 0 and end < -size else end
        chosen[axis] = slice(start, stop, step)
    return places[tuple(chosen)]


def transpose_move(ctx: Context, node: ir.Node, places: Places) -> Places:
    """``Transpose``."""
    return places.transpose(ctx.ints_attr(node, "perm"))


def expand_move(ctx: Context, node: ir.Node, places: Places) -> Places | None:
    """``Expand`` to a concrete shape."""
    target = ctx.numbers(node, 1)
    if target is None or math.prod(target) > MAX_ITEMS:
        return None
    return np.broadcast_to(places, np.broadcast_shapes(places.shape, target))


def tile_move(ctx: Context, node: ir.Node, places: Places) -> Places | None:
    """``Tile`` with concrete repeats."""
    repeats = ctx.numbers(node, 1)
    if repeats is None or places.size * math.prod(repeats) > MAX_ITEMS:
        return None
    return np.tile(places, repeats)


def concat(ctx: Context, node: ir.Node) -> list[IntTensor | None]:
    """``Concat``."""
    tensors = [ctx.ints(node, index) for index in range(len(node.inputs))]
    known = [tensor for tensor in tensors if tensor is not None]
    if len(known) < len(tensors) or not known:
        return []
    items = sum((tensor.items for tensor in known), ())
    if len(known[0].shape) == 1 and len(items) <= MAX_ITEMS:
        return [IntTensor((len(items),), items, known[0].dtype)]
    starts = np.cumsum([0, *(len(tensor.items) for tensor in known)])
    places = [start + np.arange(len(t.items)).reshape(t.shape) for start, t in zip(starts, known, strict=False)]
    return [
        picked(IntTensor((len(items),), items, known[0].dtype), np.concatenate(places, ctx.int_attr(node, "axis", 0)))
    ]


def split(ctx: Context, node: ir.Node) -> list[IntTensor | None]:
    """``Split`` into concrete parts."""
    tensor = ctx.ints(node, 0)
    if tensor is None:
        return []
    axis = normal(ctx.int_attr(node, "axis", 0), len(tensor.shape))
    sizes = split_sizes(ctx, node, tensor.shape[axis])
    if sizes is None or not all(isinstance(size, int) for size in sizes):
        return []
    numbers = [size for size in sizes if isinstance(size, int)]
    places = np.arange(len(tensor.items)).reshape(tensor.shape)
    return [picked(tensor, part) for part in np.split(places, np.cumsum(numbers)[:-1], axis)]


def non_zero(ctx: Context, node: ir.Node) -> list[IntTensor | None]:
    """``NonZero`` where every item is certain."""
    tensor = ctx.ints(node, 0)
    zeros = [] if tensor is None else [equal(item, 0) for item in tensor.items]
    if tensor is None or None in zeros or not tensor.shape:
        return []
    places = np.array(np.nonzero(np.logical_not(np.array(zeros, bool)).reshape(tensor.shape)))
    order: list[int] = places.ravel().tolist()
    return [IntTensor((len(tensor.shape), places.shape[1]), tuple(order), ir.DataType.INT64)]


RULES: dict[OpKey, IntRule] = {
    ("", "Concat"): concat,
    ("", "Expand"): moved(expand_move),
    ("", "Flatten"): reshaped(flattened),
    ("", "Gather"): gather,
    ("", "GatherElements"): gather_elements,
    ("", "Identity"): lambda ctx, node: [ctx.ints(node, 0)],
    ("", "NonZero"): non_zero,
    ("", "Reshape"): reshaped(reshape_target),
    ("", "Slice"): moved(slice_move),
    ("", "Split"): split,
    ("", "Squeeze"): reshaped(squeezed),
    ("", "Tile"): moved(tile_move),
    ("", "Transpose"): moved(transpose_move),
    ("", "Unsqueeze"): reshaped(unsqueezed),
}
