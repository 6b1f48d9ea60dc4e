"""Integer content comes from constants, shapes, sizes and ranges."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ...symbolic.dims import Expr
from .algebra import product
from .context import Context, IntRule, OpKey
from .declared import array_content, tensor_content
from .facts import MAX_ITEMS, IntTensor

INT64 = ir.DataType.INT64


def constant(ctx: Context, node: ir.Node) -> list[IntTensor | None]:
    """``Constant`` in its integer spellings; floats where they are exact integers."""
    for name, attr in node.attributes.data.items():
        if attr.ref_attr_name is not None:
            break
        if name == "value":
            return [tensor_content(attr.value)]
        if name == "value_int":
            return [IntTensor((), (attr.value,), INT64)]
        if name == "value_ints":
            return [IntTensor((len(attr.value),), tuple(attr.value), INT64)]
        if name == "value_float":
            return [array_content(np.array(attr.value, np.float32), ir.DataType.FLOAT)]
    return []


def shape_of(ctx: Context, node: ir.Node) -> list[IntTensor | None]:
    """``Shape`` with ``start`` and ``end``."""
    shape = ctx.shape(node, 0)
    if shape is None:
        return []
    start, end = ctx.attr(node, "start"), ctx.attr(node, "end")
    if start is not None or end is not None:
        shape = shape[slice(start, end)]
    return [IntTensor((len(shape),), shape, INT64)]


def size_of(ctx: Context, node: ir.Node) -> list[IntTensor | None]:
    """``Size``: the number of elements."""
    shape = ctx.shape(node, 0)
    return [] if shape is None else [IntTensor((), (product(shape),), INT64)]


def constant_of_shape(ctx: Context, node: ir.Node) -> list[IntTensor | None]:
    """``ConstantOfShape`` where the shape is concrete and the value an exact integer."""
    shape = ctx.numbers(node, 0)
    tensor = ctx.attr(node, "value")
    if shape is None or math.prod(shape) > MAX_ITEMS:
        return []
    value = IntTensor((1,), (0,), ir.DataType.FLOAT) if tensor is None else tensor_content(tensor)
    return [] if value is None else [IntTensor(shape, value.items * math.prod(shape), value.dtype)]


def range_of(ctx: Context, node: ir.Node) -> list[IntTensor | None]:
    """``Range`` with integer bounds; a symbolic one has a shape only."""
    bounds = [ctx.ints(node, index) for index in range(3)]
    if any(bound is None or bound.dtype not in (INT64, ir.DataType.INT32) for bound in bounds):
        return []
    start, limit, delta = (bound.items[0] for bound in bounds if bound is not None)
    if isinstance(start, Expr) or isinstance(limit, Expr) or isinstance(delta, Expr) or not delta:
        return []
    found = range(start, limit, delta)
    if len(found) > MAX_ITEMS or bounds[0] is None:
        return []
    return [IntTensor((len(found),), tuple(found), bounds[0].dtype)]


RULES: dict[OpKey, IntRule] = {
    ("", "Constant"): constant,
    ("", "ConstantOfShape"): constant_of_shape,
    ("", "Range"): range_of,
    ("", "Shape"): shape_of,
    ("", "Size"): size_of,
}
