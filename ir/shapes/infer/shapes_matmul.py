"""These rules infer the shapes of contractions: matrix products, convolutions, einsum."""

from __future__ import annotations

import onnx_ir as ir

from ...symbolic.dims import Dim
from . import algebra
from .context import Context, OpKey, ShapeRule
from .facts import Shape
from .shapes_layout import one


def matmul(ctx: Context, node: ir.Node) -> Shape | None:
    """``MatMul`` as numpy: ranks of 1 are padded and dropped again, batches broadcast."""
    a, b = ctx.shape(node, 0), ctx.shape(node, 1)
    return None if a is None or b is None else contracted(ctx, a, b)


def matmul_integer(ctx: Context, node: ir.Node) -> Shape | None:
    """``QLinearMatMul``: the second matrix is the fourth input."""
    a, b = ctx.shape(node, 0), ctx.shape(node, 3)
    return None if a is None or b is None else contracted(ctx, a, b)


def contracted(ctx: Context, a: Shape, b: Shape) -> Shape | None:
    """The product's shape."""
    if len(a) == 1 and len(b) == 1:
        return ()
    if len(a) == 1:
        return (*b[:-2], b[-1])
    if len(b) == 1:
        return a[:-1]
    if len(b) == 2:
        return (*a[:-1], b[1])
    batch = ctx.broadcast(a[:-2], b[:-2])
    return None if batch is None else (*batch, a[-2], b[-1])


def gemm(ctx: Context, node: ir.Node) -> Shape | None:
    """``Gemm``."""
    a, b = ctx.shape(node, 0), ctx.shape(node, 1)
    if a is None or b is None:
        return None
    return a[1 if ctx.int_attr(node, "transA", 0) else 0], b[0 if ctx.int_attr(node, "transB", 0) else 1]


def einsum(ctx: Context, node: ir.Node) -> Shape | None:
    """``Einsum`` without ellipsis."""
    equation = ctx.attr(node, "equation").replace(" ", "")
    if "..." in equation:
        return None
    left, _, right = equation.partition("->")
    sizes: dict[str, Dim] = {}
    for index, letters in enumerate(left.split(",")):
        shape = ctx.shape(node, index)
        if shape is None:
            return None
        for letter, dim in zip(letters, shape, strict=True):
            sizes[letter] = ctx.join(sizes[letter], dim) if letter in sizes else dim
    if "->" not in equation:
        right = "".join(letter for letter in sorted(sizes) if left.count(letter) == 1)
    return tuple(sizes[letter] for letter in right)


def convolution(ctx: Context, node: ir.Node) -> Shape | None:
    """``Conv`` with explicit, absent or automatic padding."""
    source, weight = ctx.shape(node, 0), ctx.shape(node, 1)
    if source is None or weight is None:
        return None
    return (source[0], weight[0], *windows(ctx, node, source[2:], weight[2:]))


def pooling(ctx: Context, node: ir.Node) -> Shape | None:
    """``MaxPool``, ``AveragePool`` and ``LpPool``."""
    source, kernel = ctx.shape(node, 0), ctx.ints_attr(node, "kernel_shape")
    if source is None or kernel is None or ctx.int_attr(node, "ceil_mode", 0):
        return None
    return (*source[:2], *windows(ctx, node, source[2:], kernel))


def windows(ctx: Context, node: ir.Node, sizes: Shape, kernel: Shape) -> Shape:
    """How many windows fit along each axis."""
    rank = len(sizes)
    strides = ctx.ints_attr(node, "strides") or (1,) * rank
    dilations = ctx.ints_attr(node, "dilations") or (1,) * rank
    pads = ctx.ints_attr(node, "pads") or (0,) * (2 * rank)
    automatic = ctx.attr(node, "auto_pad")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        return tuple(algebra.ceil_div(size, stride) for size, stride in zip(sizes, strides, strict=True))
    found: list[Dim] = []
    for place, size in enumerate(sizes):
        extent = algebra.add(algebra.mul(algebra.sub(kernel[place], 1), dilations[place]), 1)
        around = 0 if automatic == "VALID" else pads[place] + pads[place + rank]
        found.append(algebra.add(algebra.floordiv(algebra.sub(algebra.add(size, around), extent), strides[place]), 1))
    return tuple(found)


RULES: dict[OpKey, ShapeRule] = {
    ("", "AveragePool"): one(pooling),
    ("", "Conv"): one(convolution),
    ("", "ConvInteger"): one(convolution),
    ("", "Einsum"): one(einsum),
    ("", "Gemm"): one(gemm),
    ("", "LpPool"): one(pooling),
    ("", "MatMul"): one(matmul),
    ("", "MatMulInteger"): one(matmul),
    ("", "MaxPool"): one(pooling),
    ("", "QLinearMatMul"): one(matmul_integer),
}
