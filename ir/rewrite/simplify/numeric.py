"""Folding of small float constants by operations that IEEE arithmetic fixes to the last bit, whoever computes them.

Pow, Exp, Sin, MatMul, sums and their like are never folded: one library's last bit is not another's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from ...shapes.infer.context import Context, OpKey

Array = np.ndarray[Any, Any]
Fold = Callable[[Context, ir.Node, list[Array]], Array | None]

MAX_ITEMS = 1024


def _plain(function: Callable[..., Any]) -> Fold:
    return lambda ctx, node, arrays: np.asarray(function(*arrays))


def _like_first(function: Callable[..., Any]) -> Fold:
    """Arithmetic whose result has the operands' type, floats only (integers wrap, and are folded elsewhere)."""

    def fold(ctx: Context, node: ir.Node, arrays: list[Array]) -> Array | None:
        kind = arrays[0].dtype
        if kind.kind in "iub":
            return None
        with np.errstate(all="ignore"):
            return np.asarray(function(*arrays)).astype(kind, copy=False)

    return fold


def _cast(ctx: Context, node: ir.Node, arrays: list[Array]) -> Array | None:
    dtype = ir.DataType(ctx.int_attr(node, "to", 0))
    if dtype not in CASTS:
        return None
    array = arrays[0]
    if array.dtype.kind not in "iub" and dtype not in FLOATS and not np.all(np.isfinite(array.astype(np.float64))):
        return None
    if dtype not in FLOATS and dtype is not ir.DataType.BOOL:
        info = np.iinfo(dtype.numpy())
        if array.size and not (
            info.min <= array.astype(np.float64).min() and array.astype(np.float64).max() < info.max
        ):
            return None
    with np.errstate(all="ignore"):
        return array.astype(dtype.numpy())


def _shaped(ctx: Context, node: ir.Node, arrays: list[Array]) -> Array | None:
    shape = ctx.facts.shape(node.outputs[0])
    if shape is None or not all(isinstance(dim, int) for dim in shape):
        return None
    return arrays[0].reshape([dim for dim in shape if isinstance(dim, int)])


def _transpose(ctx: Context, node: ir.Node, arrays: list[Array]) -> Array | None:
    return arrays[0].transpose(ctx.ints_attr(node, "perm"))


def _concat(ctx: Context, node: ir.Node, arrays: list[Array]) -> Array | None:
    return np.concatenate(arrays, axis=ctx.int_attr(node, "axis", 0))


def _gather(ctx: Context, node: ir.Node, arrays: list[Array]) -> Array | None:
    return np.take(arrays[0], arrays[1], axis=ctx.int_attr(node, "axis", 0))


def _expand(ctx: Context, node: ir.Node, arrays: list[Array]) -> Array | None:
    shape = np.broadcast_shapes(arrays[0].shape, tuple(arrays[1].tolist()))
    return np.broadcast_to(arrays[0], shape) if math.prod(shape) <= MAX_ITEMS else None


def _slice(ctx: Context, node: ir.Node, arrays: list[Array]) -> Array | None:
    data, starts, ends = arrays[:3]
    axes = arrays[3].tolist() if len(arrays) > 3 else list(range(starts.size))
    steps = arrays[4].tolist() if len(arrays) > 4 else [1] * starts.size
    places = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts.tolist(), ends.tolist(), steps, strict=True):
        places[axis] = slice(start, None if step < 0 and end < -data.shape[axis] else end, step)
    return data[tuple(places)]


def _filled(ctx: Context, node: ir.Node, arrays: list[Array]) -> Array | None:
    tensor = ctx.attr(node, "value")
    shape = tuple(arrays[0].tolist())
    if math.prod(shape) > MAX_ITEMS:
        return None
    return np.zeros(shape, np.float32) if tensor is None else np.full(shape, tensor.numpy().ravel()[0])


def _triangle(ctx: Context, node: ir.Node, arrays: list[Array]) -> Array | None:
    diagonal = int(arrays[1].ravel()[0]) if len(arrays) > 1 else 0
    return np.triu(arrays[0], diagonal) if ctx.int_attr(node, "upper", 1) else np.tril(arrays[0], diagonal)


FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
CASTS = FLOATS | {ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL}

EXACT: dict[OpKey, Fold] = {
    ("", "Abs"): _like_first(np.abs),
    ("", "Add"): _like_first(np.add),
    ("", "And"): _plain(np.logical_and),
    ("", "Cast"): _cast,
    ("", "Ceil"): _like_first(np.ceil),
    ("", "Concat"): _concat,
    ("", "ConstantOfShape"): _filled,
    ("", "Div"): _like_first(np.divide),
    ("", "Equal"): _plain(np.equal),
    ("", "Expand"): _expand,
    ("", "Flatten"): _shaped,
    ("", "Floor"): _like_first(np.floor),
    ("", "Gather"): _gather,
    ("", "Greater"): _plain(np.greater),
    ("", "GreaterOrEqual"): _plain(np.greater_equal),
    ("", "Less"): _plain(np.less),
    ("", "LessOrEqual"): _plain(np.less_equal),
    ("", "Mul"): _like_first(np.multiply),
    ("", "Neg"): _like_first(np.negative),
    ("", "Not"): _plain(np.logical_not),
    ("", "Or"): _plain(np.logical_or),
    ("", "Reshape"): _shaped,
    ("", "Slice"): _slice,
    ("", "Sqrt"): _like_first(np.sqrt),
    ("", "Squeeze"): _shaped,
    ("", "Sub"): _like_first(np.subtract),
    ("", "Transpose"): _transpose,
    ("", "Trilu"): _triangle,
    ("", "Unsqueeze"): _shaped,
    ("", "Where"): _plain(np.where),
    ("", "Xor"): _plain(np.logical_xor),
}


def fold(ctx: Context, node: ir.Node, arrays: list[Array]) -> Array | None:
    """The result of a node over constant inputs; None where it is not exact, not small, or not of one output."""
    rule = EXACT.get((node.domain, node.op_type))
    if rule is None or len(node.outputs) != 1 or any(array.size > MAX_ITEMS for array in arrays):
        return None
    try:
        found = rule(ctx, node, arrays)
    except (ValueError, IndexError, TypeError, KeyError):
        return None
    if found is None or found.size > MAX_ITEMS:
        return None
    return None if np.any(found != found) else found  # a NaN's sign and payload are the library's own  # noqa: PLR0124
