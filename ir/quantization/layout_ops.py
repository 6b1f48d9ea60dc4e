"""Layout operators move numbers without changing them; rules say where each axis of the result was before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from ..core.constants import constant_of
from ..core.operators import of
from ..states.trace import axes_of
from ..symbolic.dims import Dim

Shape = tuple[Dim | None, ...] | None
Axes = tuple[int | None, ...] | None
"""For each axis of the result the axis of the source that it is (None: new, cut or merged); None where unknown."""


def axes_after(node: ir.Node, source: Shape, result: Shape) -> Axes:
    """Where the axes of the first output of a moving operator come from; None where the shapes do not tell."""
    rule = MOVES.get(node.op_type)
    rank = len(source) if source is not None else None
    if rule is None or rank is None:
        return None
    return rule(node, tuple(source or ()), result)


def is_move(node: ir.Node) -> bool:
    """True for an operator whose outputs hold nothing but numbers of its first input (and zeros)."""
    return not node.domain and (node.op_type in MOVES or _fills_with_zero(node) is not None)


def moved_input(node: ir.Node) -> int:
    """The index of the input that a moving operator moves."""
    return _fills_with_zero(node) or 0


def is_one_to_one(node: ir.Node) -> bool:
    """True where the source holds nothing that the result does not: then a range of one is a range of the other."""
    return not node.domain and of(node).keeps_all


def chosen_from(node: ir.Node) -> tuple[ir.Value, ...]:
    """The two inputs of a Where that is given computed numbers on both sides: its result holds nothing else."""
    if node.op_type != "Where" or node.domain or len(node.inputs) < 3:
        return ()
    sides = tuple(value for value in node.inputs[1:3] if value is not None and constant_of(value) is None)
    return sides if len(sides) == 2 and not any(_is_zero(value) for value in sides) else ()


def inverse(axes: Axes, rank: int) -> Axes:
    """The way back: for each axis of the source (of ``rank`` axes) the axis of the result."""
    if axes is None:
        return None
    return tuple(next((at for at, axis in enumerate(axes) if axis == i), None) for i in range(rank))


def _fills_with_zero(node: ir.Node) -> int | None:
    """The input of a Where whose other choice is constant zero, which every grid holds."""
    if node.op_type != "Where" or node.domain or len(node.inputs) < 3:
        return None
    zero = [index for index in (1, 2) if _is_zero(node.inputs[index])]
    return 3 - zero[0] if len(zero) == 1 else None


def _is_zero(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "ConstantOfShape":
        attribute = producer.attributes.get("value")
        return attribute is None or not attribute.as_tensor().numpy().any()
    if producer is not None and of(producer).keeps_all:
        return _is_zero(producer.inputs[0])
    tensor = constant_of(value)
    return tensor is not None and tensor.size == 1 and not tensor.numpy().any()


def _same_axes(node: ir.Node, source: Sequence[Dim | None], result: Shape) -> Axes:
    return tuple(range(len(source)))


def _axes_of_transpose(node: ir.Node, source: Sequence[Dim | None], result: Shape) -> Axes:
    attribute = node.attributes.get("perm")
    return tuple(attribute.as_ints()) if attribute is not None else tuple(reversed(range(len(source))))


def _axes_of_unsqueeze(node: ir.Node, source: Sequence[Dim | None], result: Shape) -> Axes:
    new = axes_of(node)
    if new is None:
        return None
    rank = len(source) + len(new)
    at = {axis % rank for axis in new}
    rest = iter(range(len(source)))
    return tuple(None if i in at else next(rest) for i in range(rank))


def _axes_of_squeeze(node: ir.Node, source: Sequence[Dim | None], result: Shape) -> Axes:
    gone = axes_of(node)
    if gone is None:
        return None
    at = {axis % len(source) for axis in gone}
    return tuple(i for i in range(len(source)) if i not in at)


def _axes_of_reshape(node: ir.Node, source: Sequence[Dim | None], result: Shape) -> Axes:
    """Equal dimensions from both ends stay; what lies between was merged or split."""
    if result is None:
        return None
    mapped: list[int | None] = [None] * len(result)
    shorter = min(len(source), len(result))
    for i in range(shorter):
        if source[i] is None or source[i] != result[i]:
            break
        mapped[i] = i
    for i in range(1, shorter + 1):
        if source[-i] is None or source[-i] != result[-i]:
            break
        mapped[-i] = len(source) - i
    return tuple(mapped)


def _axes_of_expand(node: ir.Node, source: Sequence[Dim | None], result: Shape) -> Axes:
    if result is None:
        return None
    added = len(result) - len(source)
    # an axis of 1 that becomes longer repeats its numbers, a channel axis of 1 has one channel
    return tuple(i - added if i >= added and source[i - added] == result[i] else None for i in range(len(result)))


def _axes_left(node: ir.Node, source: Sequence[Dim | None], result: Shape) -> Axes:
    """An axis that became shorter lost channels: it is no longer the same axis."""
    if result is None or len(result) != len(source):
        return None
    return tuple(i if source[i] is not None and source[i] == result[i] else None for i in range(len(source)))


def _unknown_axes(node: ir.Node, source: Sequence[Dim | None], result: Shape) -> Axes:
    return None


MOVES: dict[str, Callable[[ir.Node, Sequence[Dim | None], Shape], Axes]] = {
    "Cast": _same_axes,
    "Expand": _axes_of_expand,
    "Flatten": _axes_of_reshape,
    "Gather": _unknown_axes,
    "GatherElements": _axes_left,
    "GatherND": _unknown_axes,
    "Identity": _same_axes,
    "Reshape": _axes_of_reshape,
    "Slice": _axes_left,
    "Split": _axes_left,
    "Squeeze": _axes_of_squeeze,
    "Tile": _axes_of_expand,
    "Transpose": _axes_of_transpose,
    "Unsqueeze": _axes_of_unsqueeze,
}
