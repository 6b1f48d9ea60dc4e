"""These rules state the demands of elementwise operators, contractions and layout operators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import onnx_ir as ir

from ...symbolic.dims import Dim
from ..infer import algebra
from ..infer.context import Context, normal
from ..infer.shapes_elementwise import BROADCAST
from .demand import Demanded, Relation, Rule

Dims = Sequence[Dim]


def aligned(a: Dims, b: Dims) -> Iterator[tuple[Dim, Dim]]:
    """Pairs of dimensions that broadcasting lays on each other."""
    return zip(reversed(a), reversed(b), strict=False)


def broadcastable(a: Dims, b: Dims) -> Iterator[Demanded]:
    """Each aligned pair is equal or holds a 1."""
    for left, right in aligned(a, b):
        yield Relation.BROADCAST, left, right


def broadcast(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """Every input broadcasts with the ones before it."""
    shapes = [ctx.shape(node, index) for index in range(len(node.inputs))]
    for index, shape in enumerate(shapes):
        for other in shapes[:index]:
            if shape is not None and other is not None:
                yield from broadcastable(other, shape)


def product(a: Dims, b: Dims) -> Iterator[Demanded]:
    """A matrix product: the inner dimensions are equal, the batches broadcast."""
    if not a or not b:
        return
    yield Relation.EQUAL, a[-1], b[-2] if len(b) > 1 else b[0]
    yield from broadcastable(a[:-2], b[:-2])


def matmul(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """``MatMul``, ``MatMulInteger``."""
    a, b = ctx.shape(node, 0), ctx.shape(node, 1)
    if a is not None and b is not None:
        yield from product(a, b)


def gemm(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """``Gemm``: the inner dimensions are equal, C broadcasts to the result."""
    a, b, c = (ctx.shape(node, index) for index in range(3))
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return
    a = a[::-1] if ctx.int_attr(node, "transA", 0) else a
    b = b[::-1] if ctx.int_attr(node, "transB", 0) else b
    yield Relation.EQUAL, a[1], b[0]
    if c is not None:
        yield from broadcastable((a[0], b[1]), c)


def fused_matmul(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """``FusedMatMul`` without batch transposes."""
    a, b = ctx.shape(node, 0), ctx.shape(node, 1)
    if a is None or b is None or ctx.int_attr(node, "transBatchA", 0) or ctx.int_attr(node, "transBatchB", 0):
        return
    a = (*a[:-2], *a[:-3:-1]) if ctx.int_attr(node, "transA", 0) else a
    b = (*b[:-2], *b[:-3:-1]) if ctx.int_attr(node, "transB", 0) else b
    yield from product(a, b)


def matmul_bits(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """``MatMulNBits``: the last dimension is K."""
    source = ctx.shape(node, 0)
    if source:
        yield Relation.EQUAL, source[-1], ctx.int_attr(node, "K", 0)


def einsum(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """``Einsum``: one letter, one size."""
    equation = str(ctx.attr(node, "equation")).replace(" ", "")
    if "..." in equation:
        return
    sizes: dict[str, Dim] = {}
    for index, letters in enumerate(equation.partition("->")[0].split(",")):
        for letter, dim in zip(letters, ctx.shape(node, index) or (), strict=False):
            yield Relation.BROADCAST, sizes.setdefault(letter, dim), dim


def convolution(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """``Conv``: the channels are those of the weight times the groups."""
    source, weight = ctx.shape(node, 0), ctx.shape(node, 1)
    if source is not None and weight is not None and len(source) > 1 and len(weight) > 1:
        yield Relation.EQUAL, source[1], algebra.mul(weight[1], ctx.int_attr(node, "group", 1))


def concat(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """``Concat``: equal beside the axis."""
    shapes = [shape for index in range(len(node.inputs)) if (shape := ctx.shape(node, index)) is not None]
    if not shapes:
        return
    axis = normal(ctx.int_attr(node, "axis", 0), len(shapes[0]))
    for a, b in pairwise(shapes):
        for place, (left, right) in enumerate(zip(a, b, strict=True)):
            if place != axis:
                yield Relation.EQUAL, left, right


def reshape(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """``Reshape``: as many elements after as before; with a -1, a multiple of the others."""
    source, target = ctx.shape(node, 0), ctx.items(node, 1)
    if source is None or target is None:
        return
    copies = not ctx.int_attr(node, "allowzero", 0)
    given = [source[i] if item == 0 and copies else item for i, item in enumerate(target)]
    kept, left = [dim for dim in given if dim != -1], list(source)
    for dim in list(kept):  # the same dimension on both sides cancels
        if dim in left and dim != 0:
            left.remove(dim)
            kept.remove(dim)
    relation = Relation.EQUAL if len(given) == sum(item != -1 for item in given) else Relation.MULTIPLE
    yield relation, algebra.product(tuple(left)), algebra.product(tuple(kept))


def expand(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """``Expand``: the input broadcasts with the target."""
    source, target = ctx.shape(node, 0), ctx.items(node, 1)
    if source is not None and target is not None:
        yield from broadcastable(source, target)


def squeeze(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """``Squeeze``: the axes are 1."""
    source, axes = ctx.shape(node, 0), ctx.axes(node, 1)
    if source is not None:
        for axis in axes or ():
            yield Relation.EQUAL, source[normal(axis, len(source))], 1


def split(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """``Split``: the parts make the whole."""
    source = ctx.shape(node, 0)
    parts = ctx.items(node, 1) if ctx.has(node, 1) else ctx.ints_attr(node, "split")
    if source is None or not parts:
        return
    total: Dim = 0
    for part in parts:
        total = algebra.add(total, part)
    yield Relation.EQUAL, source[normal(ctx.int_attr(node, "axis", 0), len(source))], total


def scale(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """Norms: scale and bias broadcast with the input."""
    source = ctx.shape(node, 0)
    for index in (1, 2):
        other = ctx.shape(node, index)
        if source is not None and other is not None:
            yield from broadcastable(source, other)


def skip_scale(ctx: Context, node: ir.Node) -> Iterator[Demanded]:
    """``Skip…LayerNormalization``: the skip has the input's shape, scale and biases its last dimension."""
    source = ctx.shape(node, 0)
    for index in range(1, len(node.inputs)):
        other = ctx.shape(node, index)
        if source is not None and other is not None:
            yield from broadcastable(source, other)


BASIC: dict[tuple[str, str], Rule] = {
    **{("", name): broadcast for name in BROADCAST},
    ("", "Concat"): concat,
    ("", "Conv"): convolution,
    ("", "Einsum"): einsum,
    ("", "Expand"): expand,
    ("", "Gemm"): gemm,
    ("", "LayerNormalization"): scale,
    ("", "MatMul"): matmul,
    ("", "MatMulInteger"): matmul,
    ("", "RMSNormalization"): scale,
    ("", "Reshape"): reshape,
    ("", "SimplifiedLayerNormalization"): scale,
    ("", "Split"): split,
    ("", "Squeeze"): squeeze,
    ("com.microsoft", "FusedMatMul"): fused_matmul,
    ("com.microsoft", "MatMulNBits"): matmul_bits,
    ("com.microsoft", "SimplifiedLayerNormalization"): scale,
    ("com.microsoft", "SkipLayerNormalization"): skip_scale,
    ("com.microsoft", "SkipSimplifiedLayerNormalization"): skip_scale,
}
