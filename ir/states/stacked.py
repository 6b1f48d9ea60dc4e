"""Caches of several layers, or keys and values, in one tensor: taken apart, each appended to, put together again."""

from __future__ import annotations

from collections.abc import Container, Iterator

import onnx_ir as ir

from ..core.constants import constant_of
from ..core.operators.walks import PARTS
from ..symbolic.symbols import dims_of
from .base import Layout, State
from .trace import Axes, is_layout, step

MAX_VISITS = 2000
Piece = tuple[ir.Value, Axes]
"""A part of the stack, and which of the stack's axes its axes are."""


def match(value: ir.Value, outputs: Container[int]) -> State | None:
    """The state whose parts Concat appends to and an output of the same rank holds all together, or None."""
    rank = len(value.shape) if value.shape is not None else 0
    grown: dict[int, ir.Value] = {}
    axes: set[int | None] = set()
    for node, place in _appends(value, rank) if rank > 2 else ():
        axes.add(place)
        grown[id(node)] = node.outputs[0]
    axis = next(iter(axes)) if len(axes) == 1 else None
    if axis is None or len(grown) < 2:
        return None
    ends = [{id(end): end for end in _put_together(part) if id(end) in outputs} for part in grown.values()]
    for end in ends[0].values():
        if all(id(end) in others for others in ends) and _grew(value, end, axis):
            return State(
                layout=Layout.APPEND,
                axis=axis,
                input=value,
                output=end,
                update=end.producer(),
                carried=end,
                evidence=f"{len(grown)} parts of it are appended to and put together again",
                stacked=True,
            )
    return None


def _appends(value: ir.Value, rank: int) -> Iterator[tuple[ir.Node, int | None]]:
    """The Concats that append to a part of ``value``, and the axis of ``value`` that they do it on."""
    work: list[Piece] = [(value, tuple(range(rank)))]
    seen = {id(value)}
    while work and len(seen) < MAX_VISITS:
        at, axes = work.pop(0)
        for node, index in at.uses():
            if index or node.domain:
                continue
            if node.op_type == "Concat" and len(node.inputs) > 1:
                place = node.attributes["axis"].as_int()
                yield node, axes[place] if axes is not None and -len(axes) <= place < len(axes) else None
                continue
            for output in node.outputs if node.op_type in PARTS or is_layout(node) else ():
                if id(output) not in seen:
                    seen.add(id(output))
                    work.append((output, _part(node, axes)))


def _part(node: ir.Node, axes: Axes) -> Axes:
    """Where the stack's axes are in a part that ``node`` takes of it, or moves."""
    if axes is None or node.op_type not in PARTS:
        return step(node, axes)
    if node.op_type != "Gather":
        return axes
    at = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    taken = constant_of(node.inputs[1])
    if taken is None or len(taken.shape):
        return None
    return tuple(axis for i, axis in enumerate(axes) if i != at % len(axes))


def _put_together(part: ir.Value) -> Iterator[ir.Value]:
    """What ``part`` becomes through layout nodes and Concats, itself first."""
    work, seen = [part], {id(part)}
    while work and len(seen) < MAX_VISITS:
        at = work.pop(0)
        yield at
        for node, index in at.uses():
            joins = node.op_type == "Concat" and not node.domain
            if (joins or (index == 0 and is_layout(node))) and id(node.outputs[0]) not in seen:
                seen.add(id(node.outputs[0]))
                work.append(node.outputs[0])


def _grew(past: ir.Value, present: ir.Value, axis: int) -> bool:
    """True where the two types differ on ``axis`` alone."""
    before, after = dims_of(past), dims_of(present)
    if before is None or after is None or len(before) != len(after) or past.dtype != present.dtype:
        return False
    return [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b] == [axis]
