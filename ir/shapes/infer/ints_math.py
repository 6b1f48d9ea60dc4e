"""Arithmetic on integer content is exact over symbols, and refused where a type could overflow or round."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
import onnx_ir as ir

from ...symbolic.dims import Dim, Expr
from . import algebra
from .context import Context, IntRule, OpKey
from .declared import FLOATS, INTEGERS
from .facts import MAX_ITEMS, IntTensor, Item

Binary = Callable[[Dim, Dim], Dim | None]
WIDE = frozenset({ir.DataType.INT64, ir.DataType.INT32})  # a symbolic length fits; narrower integers may not
SYMBOLIC_FLOATS = {ir.DataType.FLOAT: 16, ir.DataType.DOUBLE: 1 << 20}  # largest factor of one length still exact


def fits(item: Item | None, dtype: ir.DataType) -> bool:
    """True where ``dtype`` holds the item exactly, whatever its symbols are."""
    if item is None:
        return False
    if isinstance(item, Expr):
        if dtype in WIDE:
            return all(abs(coeff) < 1 << 31 for _, coeff in item.terms)
        factor = SYMBOLIC_FLOATS.get(dtype, 0)
        return all(len(mono) <= 1 and abs(coeff) <= factor for mono, coeff in item.terms)
    if dtype in FLOATS:
        return abs(item) < FLOATS[dtype]
    if dtype is ir.DataType.BOOL:
        return isinstance(item, bool)
    info = np.iinfo(dtype.numpy())
    return info.min <= item <= info.max


def sealed(shape: tuple[int, ...], items: list[Dim | None], dtype: ir.DataType) -> list[IntTensor | None]:
    """The tensor, where every item is known and fits."""
    kept: list[Item] = []
    for item in items:
        if item is None or not fits(item, dtype):
            return []
        kept.append(item)
    return [IntTensor(shape, tuple(kept), dtype)]


def paired(a: IntTensor, b: IntTensor) -> tuple[tuple[int, ...], list[tuple[Item, Item]]]:
    """The items of two tensors side by side after broadcasting; ValueError where they do not broadcast."""
    if a.shape == b.shape:
        return a.shape, list(zip(a.items, b.items, strict=True))
    if len(b.items) == 1 and len(b.shape) <= len(a.shape):
        return a.shape, [(item, b.items[0]) for item in a.items]
    if len(a.items) == 1 and len(a.shape) <= len(b.shape):
        return b.shape, [(a.items[0], item) for item in b.items]
    shape = np.broadcast_shapes(a.shape, b.shape)
    left, right = spread(a, shape), spread(b, shape)
    return shape, list(zip(left, right, strict=True))


def spread(tensor: IntTensor, shape: tuple[int, ...]) -> list[Item]:
    """The items of a tensor broadcast to ``shape``; ValueError beyond what counts as small."""
    if tensor.shape == shape:
        return list(tensor.items)
    if math.prod(shape) > MAX_ITEMS:
        raise ValueError("too large")
    places = np.arange(len(tensor.items)).reshape(tensor.shape)
    return [tensor.items[place] for place in np.broadcast_to(places, shape).ravel().tolist()]


def binary(function: Binary) -> IntRule:
    """A rule for an elementwise operation of two inputs or more."""

    def two(a: IntTensor, b: IntTensor) -> IntTensor:
        shape, pairs = paired(a, b)
        found = sealed(shape, [function(x, y) for x, y in pairs], a.dtype)
        if not found or found[0] is None:
            raise ValueError("unknown")
        return found[0]

    def rule(ctx: Context, node: ir.Node) -> list[IntTensor | None]:
        tensors = [ctx.ints(node, index) for index in range(len(node.inputs))]
        known = [tensor for tensor in tensors if tensor is not None]
        if len(known) < len(tensors) or not known or known[0].dtype is ir.DataType.BOOL:
            return []
        try:
            return [reduce(two, known)]
        except ValueError:
            return []

    return rule


def product_of(a: Dim, b: Dim) -> Dim:
    """Multiplication."""
    return algebra.mul(a, b)


def quotient(ctx: Context, node: ir.Node) -> Sequence[IntTensor | None]:
    """``Div``: integers truncate; floats only where the quotient is exact."""
    tensor = ctx.ints(node, 0)
    if tensor is None:
        return []
    return DIV_EXACT(ctx, node) if tensor.dtype in FLOATS else DIV(ctx, node)


def exact_quotient(a: Dim, b: Dim) -> Dim | None:
    """The quotient of two non-negative numbers that leaves no rest."""
    if not (algebra.at_least(a, 0) and algebra.at_least(b, 1)) or algebra.modulo(a, b) != 0:
        return None
    return algebra.truncated_div(a, b)


def times(ctx: Context, node: ir.Node) -> Sequence[IntTensor | None]:
    """``Mul``; floats only where neither side is negative (0 times a negative is the negative zero)."""
    tensors = [ctx.ints(node, 0), ctx.ints(node, 1)]
    for tensor in tensors:
        if tensor is None:
            return []
        if tensor.dtype in FLOATS and not all(algebra.at_least(item, 0) for item in tensor.items):
            return []
    return MUL(ctx, node)


def remainder(ctx: Context, node: ir.Node) -> Sequence[IntTensor | None]:
    """``Mod``; with ``fmod`` only where signs do not matter."""
    tensor = ctx.ints(node, 0)
    if tensor is None or tensor.dtype in FLOATS:
        return []
    if ctx.int_attr(node, "fmod", 0) and not all(
        algebra.at_least(item, 0) for index in (0, 1) for item in ctx.items(node, index) or (-1,)
    ):
        return []
    return MOD(ctx, node)


def unary(function: Callable[[Dim], Dim | None], floats: bool) -> IntRule:
    """A rule for an elementwise operation of one input, with or without float tensors."""

    def rule(ctx: Context, node: ir.Node) -> list[IntTensor | None]:
        tensor = ctx.ints(node, 0)
        if tensor is None or tensor.dtype is ir.DataType.BOOL or (tensor.dtype in FLOATS and not floats):
            return []
        return sealed(tensor.shape, [function(item) for item in tensor.items], tensor.dtype)

    return rule


def absolute(item: Dim) -> Dim | None:
    """``Abs`` where the sign is certain."""
    if isinstance(item, int):
        return abs(item)
    return item if algebra.at_least(item, 0) else None


def cast(ctx: Context, node: ir.Node) -> list[IntTensor | None]:
    """``Cast`` between integers, bools and floats, exact only."""
    tensor = ctx.ints(node, 0)
    return _as(tensor, ir.DataType(ctx.int_attr(node, "to", 0))) if tensor is not None else []


def cast_like(ctx: Context, node: ir.Node) -> list[IntTensor | None]:
    """``CastLike``: as ``Cast`` to the second operand's type."""
    tensor, like = ctx.ints(node, 0), ctx.ints(node, 1)
    other = node.inputs[1] if len(node.inputs) > 1 else None
    dtype = like.dtype if like is not None else other.dtype if other is not None else None
    return _as(tensor, dtype) if tensor is not None and dtype is not None else []


def _as(tensor: IntTensor, dtype: ir.DataType) -> list[IntTensor | None]:
    if dtype is tensor.dtype:
        return [tensor]
    if dtype not in INTEGERS and dtype not in FLOATS:
        return []
    if dtype is ir.DataType.BOOL:
        truths = [algebra.equal(item, 0) for item in tensor.items]
        return sealed(tensor.shape, [None if truth is None else not truth for truth in truths], dtype)
    return sealed(tensor.shape, [int(item) if isinstance(item, bool) else item for item in tensor.items], dtype)


def folded(function: Callable[[Dim, Dim], Dim], start: int | None) -> IntRule:
    """A rule for a reduction of integers over all given axes."""

    def rule(ctx: Context, node: ir.Node) -> list[IntTensor | None]:
        tensor = ctx.ints(node, 0)
        axes = ctx.axes(node, 1)
        if tensor is None or tensor.dtype not in WIDE or len(tensor.shape) > 1 or (axes is None and ctx.has(node, 1)):
            return []
        if not axes and ctx.int_attr(node, "noop_with_empty_axes", 0):
            return [tensor]
        if start is None and not tensor.items:
            return []
        total = reduce(function, tensor.items) if start is None else reduce(function, tensor.items, start)
        keep = ctx.int_attr(node, "keepdims", 1) and len(tensor.shape) == 1
        return sealed((1,) if keep else (), [total], tensor.dtype)

    return rule


MUL = binary(product_of)
DIV = binary(algebra.truncated_div)
DIV_EXACT = binary(exact_quotient)
MOD = binary(algebra.modulo)

RULES: dict[OpKey, IntRule] = {
    ("", "Abs"): unary(absolute, floats=True),
    ("", "Add"): binary(algebra.add),
    ("", "Cast"): cast,
    ("", "CastLike"): cast_like,
    ("", "Ceil"): unary(lambda item: item, floats=True),
    ("", "Div"): quotient,
    ("", "Floor"): unary(lambda item: item, floats=True),
    ("", "Max"): binary(algebra.maximum),
    ("", "Min"): binary(algebra.minimum),
    ("", "Mod"): remainder,
    ("", "Mul"): times,
    ("", "Neg"): unary(lambda item: algebra.sub(0, item), floats=False),
    ("", "ReduceMax"): folded(algebra.maximum, None),
    ("", "ReduceMin"): folded(algebra.minimum, None),
    ("", "ReduceProd"): folded(algebra.mul, 1),
    ("", "ReduceSum"): folded(algebra.add, 0),
    ("", "Round"): unary(lambda item: item, floats=True),
    ("", "Sub"): binary(algebra.sub),
}
