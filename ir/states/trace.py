"""Walks follow a tensor through nodes that move it without changing its numbers: Cast, Transpose, Reshape …"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import onnx_ir as ir

from ..core.constants import constant_of
from ..core.operators import key_of
from ..core.operators.walks import PAIRS

Axes = tuple[int | None, ...] | None
"""For each axis of a value the axis of the walk's start that it is (None: merged or new); None where unknown."""

MAX_STEPS = 64  # no exporter chains more layout nodes; a crafted graph must not make the walk long


@dataclass(frozen=True)
class DefUsePath:
    """A value reached from a start through layout nodes, and where the start's axes are now.

    ``entries`` are the nodes of ``chain`` that do more than move, each with the start's axis on which it does.
    """

    value: ir.Value
    chain: tuple[ir.Node, ...]
    axes: Axes
    entries: tuple[tuple[ir.Node, int], ...] = ()

    def axis_at_start(self, axis: int) -> int | None:
        """The start's axis that is ``axis`` here (negative counts from the end); None where unknown."""
        if self.axes is None:
            return None
        at = axis + len(self.axes) if axis < 0 else axis
        return self.axes[at] if 0 <= at < len(self.axes) else None


def is_pair(node: ir.Node) -> bool:
    """True for either half of a pair that puts a tensor on a grid and takes it off: it stays the same tensor."""
    return key_of(node) in PAIRS


def is_layout(node: ir.Node) -> bool:
    """True for a node that only moves its first input (a single-operand Concat included)."""
    if node.domain:
        return is_pair(node)
    return node.op_type in _AXES or (node.op_type == "Concat" and len(node.inputs) == 1)


Bridges = Mapping[int, "tuple[ir.Value, ir.Node]"]
"""The value that a subgraph's output (by id) comes out as, and the node it comes out of."""


def forward(
    start: ir.Value,
    bridges: Bridges = MappingProxyType({}),
    entry: Callable[[ir.Node, DefUsePath], int | None] = lambda node, path: None,
) -> Iterator[DefUsePath]:
    """The start itself and every value reached from it through layout nodes, nearest first; out of If branches too.

    Through a node that does more than move where ``entry`` gives the start's axis on which it does.
    """
    rank = len(start.shape) if start.shape is not None else None
    work = [DefUsePath(start, (), tuple(range(rank)) if rank is not None else None)]
    seen = {id(start)}
    for _ in range(MAX_STEPS * 4):
        if not work:
            return
        path = work.pop(0)
        yield path
        if len(path.chain) >= MAX_STEPS:
            continue
        outer = bridges.get(id(path.value))
        if outer is not None and id(outer[0]) not in seen:
            seen.add(id(outer[0]))
            work.append(replace(path, value=outer[0]))
        for node, index in path.value.uses():
            if index or id(node.outputs[0]) in seen:
                continue
            axis = None if (moves := is_layout(node)) else entry(node, path)
            if not moves and axis is None:
                continue
            seen.add(id(node.outputs[0]))
            entries = path.entries if axis is None else (*path.entries, (node, axis))
            work.append(DefUsePath(node.outputs[0], (*path.chain, node), step(node, path.axes), entries))


def backward(value: ir.Value) -> tuple[ir.Value, tuple[ir.Node, ...]]:
    """The value that ``value`` is a moved copy of, and the layout nodes between, in graph order."""
    chain: list[ir.Node] = []
    while len(chain) < MAX_STEPS:
        node = value.producer()
        if node is None or not is_layout(node) or node.inputs[0] is None:
            break
        chain.append(node)
        value = node.inputs[0]
    return value, tuple(reversed(chain))


def constant_ints(value: ir.Value | None) -> list[int] | None:
    """The integers of a small constant, flat; None where it is no constant, or no integers."""
    tensor = constant_of(value)
    if tensor is None or tensor.size > 64 or not tensor.dtype.is_integer():
        return None
    return [int(item) for item in tensor.numpy().reshape(-1)]


def axes_of(node: ir.Node) -> list[int] | None:
    """The ``axes`` of a Squeeze, Unsqueeze or reduction, as attribute or second input."""
    attribute = node.attributes.get("axes")
    if attribute is not None:
        return list(attribute.as_ints())
    return constant_ints(node.inputs[1]) if len(node.inputs) > 1 else None


def step(node: ir.Node, axes: Axes) -> Axes:
    """Where the axes are behind the layout node ``node``."""
    return _AXES.get(node.op_type, _same)(node, axes) if axes is not None else None


def _same(node: ir.Node, axes: tuple[int | None, ...]) -> Axes:
    return axes


def _transpose(node: ir.Node, axes: tuple[int | None, ...]) -> Axes:
    attribute = node.attributes.get("perm")
    perm = list(attribute.as_ints()) if attribute is not None else list(reversed(range(len(axes))))
    return tuple(axes[p] for p in perm) if sorted(perm) == list(range(len(axes))) else None


def _unsqueeze(node: ir.Node, axes: tuple[int | None, ...]) -> Axes:
    new = axes_of(node)
    if new is None:
        return None
    rank = len(axes) + len(new)
    at = {a % rank for a in new}
    rest = iter(axes)
    return tuple(None if i in at else next(rest) for i in range(rank)) if len(at) == len(new) else None


def _squeeze(node: ir.Node, axes: tuple[int | None, ...]) -> Axes:
    gone = axes_of(node)
    if gone is None or any(not -len(axes) <= a < len(axes) for a in gone):
        return None
    at = {a % len(axes) for a in gone}
    return tuple(axis for i, axis in enumerate(axes) if i not in at)


def _reshape(node: ir.Node, axes: tuple[int | None, ...]) -> Axes:
    """Matches equal dimensions from both ends; what lies between was merged or split."""
    source, target = (_texts(v) for v in (node.inputs[0], node.outputs[0]))
    if source is None or target is None or len(source) != len(axes):
        return None
    mapped: list[int | None] = [None] * len(target)
    for i in range(min(len(source), len(target))):
        if source[i] != target[i]:
            break
        mapped[i] = axes[i]
    for i in range(1, min(len(source), len(target)) + 1):
        if source[-i] != target[-i]:
            break
        mapped[-i] = axes[-i]
    return tuple(mapped)


def _texts(value: ir.Value | None) -> list[str] | None:
    return [str(d) for d in value.shape] if value is not None and value.shape is not None else None


_AXES: dict[str, Callable[[ir.Node, tuple[int | None, ...]], Axes]] = {
    "Identity": _same,
    "Cast": _same,
    "CastLike": _same,
    "QuantizeLinear": _same,
    "DequantizeLinear": _same,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}
