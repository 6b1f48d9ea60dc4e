"""States taken apart and put together again: a cell of plain arithmetic, or the states of all layers in one tensor."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence

import onnx_ir as ir

from ..core.constants import constant_of
from ..core.operators import Addressing, names, of
from ..core.operators.walks import RANK_KEPT, SAME_PLACE
from ..core.scopes import bodies
from .base import Layout, State
from .recurrent import may_be_same
from .trace import backward, forward, is_layout, step

MAX_VISITS = 2000
MAX_STEPS = 40  # back to the inputs of a number
_WRITES = names(lambda row: row.writes in (Addressing.ND, Addressing.ELEMENTS))


def match(
    value: ir.Value,
    outputs: Sequence[ir.Value],
    taken: Container[int],
    reaches: Callable[[ir.Value, ir.Value], bool],
) -> State | None:
    """The state of which nodes take parts along one axis, and an output of its type is put together of such, or None.

    ``h, c = state[0], state[1] … Concat(h', c')``: a cell's arithmetic between the parts and the pieces need not be
    understood. ``reaches`` tells whether an output depends on the input; those that ``taken`` has are other states'.
    """
    if value.dtype is None or not value.dtype.is_floating_point() or value.shape is None or len(value.shape) < 2:
        return None
    parts = _parts(value)
    for output in outputs if parts else ():
        if id(output) in taken or not may_be_same(value, output):
            continue
        for axis, last in _assembled(output, len(value.shape)):
            nodes = parts.get(axis, {})
            if len(nodes) > 1 and reaches(value, output):
                return State(
                    layout=Layout.RECURRENT,
                    input=value,
                    output=output,
                    update=last,
                    carried=output,
                    evidence=f"{len(nodes)} parts of it are taken along axis {axis}, and {last.op_type} {last.name!r} "
                    "puts it together again",
                    stacked=True,
                )
    return None


def _parts(value: ir.Value) -> dict[int, dict[str, ir.Node]]:
    """By axis of ``value`` the nodes that take a part along it that a constant names, each part once.

    Parts are taken of what was written into it before, too: a layer's update leaves the others' parts as they are.
    """
    found: dict[int, dict[str, ir.Node]] = {}
    work, seen, every = [value], {id(value)}, tuple(range(len(value.shape or ())))
    while work and len(seen) < MAX_VISITS:
        for path in forward(work.pop()):
            kept = all(node.op_type in SAME_PLACE for node in path.chain)
            axes = every if kept else path.axes or ()
            for node, index in path.value.uses():
                if index or node.domain:
                    continue
                taken = _TAKEN.get(node.op_type)
                for at, part in taken(node) if taken is not None else ():
                    axis = axes[at] if -len(axes) <= at < len(axes) else None
                    if axis is not None:
                        found.setdefault(axis, {}).setdefault(part, node)
                if node.op_type in _WRITES and axes == every and id(node.outputs[0]) not in seen:
                    seen.add(id(node.outputs[0]))
                    work.append(node.outputs[0])
    return found


def _gathered(node: ir.Node) -> Iterator[tuple[int, str]]:
    index = _number(node.inputs[1])
    if index is not None:
        yield _axis(node), str(int(index))


def _sliced(node: ir.Node) -> Iterator[tuple[int, str]]:
    bounds = [_number(value) for value in node.inputs[1:4]]
    numbers = [int(bound) for bound in bounds if bound is not None]
    if len(numbers) == len(bounds) == 3:
        start, end, axis = numbers
        yield axis, f"{start}:{end}"


def _split(node: ir.Node) -> Iterator[tuple[int, str]]:
    yield from ((_axis(node), f"{node.name}[{place}]") for place in range(len(node.outputs)))


_TAKEN: dict[str, Callable[[ir.Node], Iterator[tuple[int, str]]]] = {
    "Gather": _gathered,
    "Slice": _sliced,
    "Split": _split,
}
"""Operator -> the axis and the constant part of its operand that it takes."""


def _number(value: ir.Value | None) -> float | None:
    """The one number that a constant holds, under whatever type and shape; None for all else."""
    constant = constant_of(backward(value)[0]) if value is not None else None
    return float(constant.numpy().reshape(-1)[0]) if constant is not None and constant.size == 1 else None


def _axis(node: ir.Node) -> int:
    return node.attributes["axis"].as_int() if "axis" in node.attributes else 0


def _assembled(output: ir.Value, rank: int) -> Iterator[tuple[int, ir.Node]]:
    """The axes of ``output`` along which nodes put it together, each with the last of these nodes."""
    work: list[tuple[ir.Value, tuple[ir.Node, ...]]] = [(output, ())]
    visits = 0
    while work and visits < MAX_VISITS:
        visits += 1
        value, behind = work.pop()
        node = value.producer()
        if node is None:
            continue
        if node.op_type == "If" and not node.domain:
            work.extend((body.outputs[value.index() or 0], behind) for body in bodies(node))
        elif _joins(node):
            axis = _moved(_axis(node) if node.op_type != "ScatterND" else 0, node, behind, rank)
            if axis is not None:
                yield axis, node
        elif (source := _kept(node)) is not None:
            work.append((source, (node, *behind)))


def _joins(node: ir.Node) -> bool:
    """True for a Concat of several pieces, and for rows that are written one after another at constant places."""
    if node.domain:
        return False
    if node.op_type == "Concat":
        return len(node.inputs) > 1
    if node.op_type not in _WRITES or node.inputs[0] is None or not _is_number(node.inputs[1]):
        return False
    before = backward(node.inputs[0])[0].producer()
    return before is not None and before.op_type in _WRITES and _is_number(before.inputs[1])


def _kept(node: ir.Node) -> ir.Value | None:
    """What ``node`` hands on as it is: a moved tensor, or one that a number is added to (``x + 0 * sr``)."""
    if is_layout(node):
        return node.inputs[0]
    if of(node).adds and len(node.inputs) == 2:
        for value, other in (node.inputs, tuple(reversed(node.inputs))):
            if _is_number(other):
                return value
    return None


def _is_number(value: ir.Value | None) -> bool:
    """True for what is computed from constants, sizes and inputs without axes."""
    work, visits = [value], 0
    while work and visits < MAX_STEPS:
        visits += 1
        at = work.pop()
        node = at.producer() if at is not None else None
        if at is None or (node is not None and of(node).sizes):
            continue
        if (
            node is None
            and at.const_value is None
            and not (at.is_graph_input() and at.shape is not None and not at.shape)
        ):
            return False
        work.extend(node.inputs if node is not None else ())
    return not work


def _moved(axis: int, node: ir.Node, behind: Sequence[ir.Node], rank: int) -> int | None:
    """Where the axis on which ``node`` joins is on the output; None where that is not known."""
    shape = node.outputs[0].shape
    if shape is None and not all(mover.op_type in RANK_KEPT or of(mover).adds for mover in behind):
        return None
    inner = len(shape) if shape is not None else rank
    axes: tuple[int | None, ...] | None = tuple(range(inner))
    for mover in behind:
        axes = step(mover, axes) if is_layout(mover) else axes
    at = axis % inner
    return axes.index(at) if axes is not None and at in axes else None
