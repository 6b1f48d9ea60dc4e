"""Where a scatter's positions come from: a graph input, a counter, or nothing this suite can vouch for."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from .ranges import takes_first_row
from .signatures import is_whole_range, strip_shape_ops
from .trace import constant_ints

MAX_STEPS = 64


@dataclass(frozen=True)
class PositionSource:
    """The graph input that positions come from.

    Attributes:
        input: An integer input: the positions themselves, or the first position of this run's rows.
        batch_axis: The axis of ``input`` that counts rows of the batch, None where one row serves all.
        sequence_axis: The axis that counts tokens; None where ``input`` only tells the first position.
    """

    input: ir.Value
    batch_axis: int | None
    sequence_axis: int | None


def position_source(update: ir.Node | None, positions: ir.Value | None) -> PositionSource | None:
    """The input behind ``positions`` of the scatter ``update``.

    Through reshaping, padding's ``Where(p < 0, …, p)``, M-RoPE's row 0, and ``0..n-1 + first``. None where something
    else was computed on the way (a modulo, an offset): such positions are no plain 0..n-1.
    """
    if positions is None or update is None:
        return None
    if update.op_type == "TensorScatter" and not update.domain:
        return _first_position(positions)
    value, rows_taken = positions, 0
    for _ in range(MAX_STEPS):
        value, _ = strip_shape_ops(value)
        node = value.producer()
        if node is None:
            break
        if node.op_type in _COUNTED and not node.domain:
            return _COUNTED[node.op_type](node)
        first_row = takes_first_row(node, value)
        rows_taken += first_row
        following = node.inputs[0] if first_row else _unpadded(node)
        if following is None:
            return None
        value = following
    rank = len(value.shape) - rows_taken if value.shape is not None else 0
    if not _is_integer_input(value) or rank not in (1, 2):
        return None
    return PositionSource(value, rows_taken if rank == 2 else None, rows_taken + rank - 1)


def _counted_sum(node: ir.Node) -> PositionSource | None:
    """``0..n-1 + first``: the first position is the other operand."""
    for range_, first in (node.inputs, tuple(reversed(node.inputs))):
        if range_ is not None and first is not None and is_whole_range(strip_shape_ops(range_)[0]):
            return _first_position(first)
    return None


def _counted_range(node: ir.Node) -> PositionSource | None:
    """``Range(first, first + n)``."""
    return _first_position(node.inputs[0]) if constant_ints(node.inputs[2]) == [1] else None


_COUNTED = {"Add": _counted_sum, "Range": _counted_range}


def _first_position(value: ir.Value | None) -> PositionSource | None:
    if value is None:
        return None
    root, _ = strip_shape_ops(value)
    return PositionSource(root, None, None) if _is_integer_input(root) else None


def _is_integer_input(value: ir.Value) -> bool:
    return value.is_graph_input() and value.dtype is not None and value.dtype.is_integer() and value.shape is not None


def _unpadded(node: ir.Node) -> ir.Value | None:
    """``p`` of ``Where(p < 0, constant, p)``, which drops the writes of padded rows; None for any other node."""
    if node.op_type != "Where" or node.domain or len(node.inputs) != 3:
        return None
    condition, replaced, kept = node.inputs
    less = condition.producer() if condition is not None else None
    if less is None or less.op_type != "Less" or constant_ints(replaced) is None or kept is None:
        return None
    return kept if less.inputs[0] is kept and constant_ints(less.inputs[1]) == [0] else None
