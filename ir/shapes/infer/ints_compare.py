"""Comparisons, logic and choice on integer and bool content are decided only where certain."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ...symbolic.dims import Dim
from . import algebra
from .context import Context, IntRule, OpKey
from .facts import IntTensor
from .ints_math import paired, spread

BOOL = ir.DataType.BOOL
Decision = Callable[[Dim, Dim], bool | None]


def truths(shape: tuple[int, ...], items: list[bool | None]) -> list[IntTensor | None]:
    """The bool tensor where every item is decided."""
    decided = tuple(item for item in items if item is not None)
    return [IntTensor(shape, decided, BOOL)] if len(decided) == len(items) else []


def compared(decide: Decision) -> IntRule:
    """A rule for a comparison."""

    def rule(ctx: Context, node: ir.Node) -> list[IntTensor | None]:
        a, b = ctx.ints(node, 0), ctx.ints(node, 1)
        if a is None or b is None:
            return []
        shape, pairs = paired(a, b)
        return truths(shape, [decide(x, y) for x, y in pairs])

    return rule


def inverted(decide: Decision) -> Decision:
    """The opposite decision, unknown where unknown."""

    def opposite(a: Dim, b: Dim) -> bool | None:
        found = decide(a, b)
        return None if found is None else not found

    return opposite


def swapped(decide: Decision) -> Decision:
    """The decision with its sides exchanged."""
    return lambda a, b: decide(b, a)


def negation(ctx: Context, node: ir.Node) -> list[IntTensor | None]:
    """``Not``."""
    tensor = ctx.ints(node, 0)
    return [] if tensor is None else [IntTensor(tensor.shape, tuple(not item for item in tensor.items), BOOL)]


def where(ctx: Context, node: ir.Node) -> list[IntTensor | None]:
    """``Where`` with a known condition, or with two equal branches."""
    condition, yes, no = ctx.ints(node, 0), ctx.ints(node, 1), ctx.ints(node, 2)
    if yes is None or no is None:
        return []
    if condition is None:
        known = ctx.shape(node, 0)
        same = yes == no and known is not None and (not known or known == yes.shape)
        return [yes] if same else []
    shape = np.broadcast_shapes(condition.shape, yes.shape, no.shape)
    choices = zip(spread(condition, shape), spread(yes, shape), spread(no, shape), strict=True)
    return [IntTensor(shape, tuple(a if flag else b for flag, a, b in choices), yes.dtype)]


RULES: dict[OpKey, IntRule] = {
    ("", "And"): compared(lambda a, b: bool(a) and bool(b)),
    ("", "Equal"): compared(algebra.equal),
    ("", "Greater"): compared(swapped(algebra.less)),
    ("", "GreaterOrEqual"): compared(inverted(algebra.less)),
    ("", "Less"): compared(algebra.less),
    ("", "LessOrEqual"): compared(inverted(swapped(algebra.less))),
    ("", "Not"): negation,
    ("", "Or"): compared(lambda a, b: bool(a) or bool(b)),
    ("", "Where"): where,
    ("", "Xor"): compared(lambda a, b: bool(a) != bool(b)),
}
