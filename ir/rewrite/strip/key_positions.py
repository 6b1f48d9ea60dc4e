"""Masks compare key positions: row numbers 0..ctx-1 are replaced by the positions of the rows themselves."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ...core.errors import PassRefused
from ...core.operators import of
from ...core.operators.walks import ROWS_COMPARED
from ...states.base import State
from ...states.positions import PositionSource, position_source
from ...states.ranges import View, cache_ranges, views
from ...states.trace import constant_ints
from ..builder import Builder

FAR = 2**31 - 1
"""The position that stands for a padded row: behind every query, so every causal mask hides it."""


def mask_by_key_positions(states: Sequence[State], builder: Builder) -> None:
    """Replaces every cache-row range of the scatter states by the key positions ``[B, 1 …, S]``, padding as ``FAR``.

    With it ``row > query`` reads ``kpos > qpos or kpos < 0``, values are zeroed where ``row > last`` that is where
    ``kpos < 0``, and a sliding-window term compares the same positions. Append graphs, and rows written in order
    from a first position, have no need of it and are left alone. Raises PassRefused where a consumer of the range is
    not understood.
    """
    scattered = [state for state in states if state.in_place and not _is_counted(state)]
    if not scattered:
        return
    ranges = cache_ranges(scattered)
    uses = [view for node in ranges for view in views(node) if view.consumer.op_type != "Shape"]
    source = position_source(scattered[0].update, scattered[0].positions)
    _refuse_unknown(uses, source, bool(ranges))
    assert source is not None
    keys = _key_positions(source, builder)
    for view in uses:
        shaped = _shape_like(keys, view, builder)
        view.consumer.replace_input_with(view.operand, shaped)


def _is_counted(state: State) -> bool:
    """True where rows are written from a first position on: always in order, so row numbers are key positions."""
    source = position_source(state.update, state.positions)
    return source is not None and source.sequence_axis is None


def _refuse_unknown(uses: Sequence[View], source: PositionSource | None, any_range: bool) -> None:
    if not any_range or source is None:
        raise PassRefused(
            "the mask is not built from the cache's row numbers, so positions in any order cannot be masked",
            wanted="a comparison of 0..ctx-1 with the positions",
            hint="Use positions=ordered.",
        )
    for view in uses:
        if view.consumer.op_type not in ROWS_COMPARED or view.consumer.domain:
            raise PassRefused(
                f"the cache's row numbers enter {view.consumer.op_type} {view.consumer.name!r}, not understood",
                wanted="comparisons of row numbers with positions",
                hint="Use positions=ordered.",
            )


def _key_positions(source: PositionSource, builder: Builder) -> ir.Value:
    """``Where(p < 0, FAR, p)`` as ``[B, S]`` int64, from the input itself, at the graph's builder."""
    positions = source.input
    if positions.dtype != ir.DataType.INT64:
        positions = builder.op("Cast", [positions], "key_positions/int64", {"to": int(ir.DataType.INT64)})
    for _ in range((source.sequence_axis or 0) - (source.batch_axis is not None)):
        positions = builder.op("Gather", [positions, builder.ints(0, "zero")], "key_positions/row", {"axis": 0})
    if source.batch_axis is None:
        positions = builder.op("Unsqueeze", [positions, builder.ints([0], "first_axis")], "key_positions/batch")
    padded = builder.op(
        "Less", [positions, builder.ints(0, "zero")], "key_positions/is_padding", dtype=ir.DataType.BOOL
    )
    return builder.op("Where", [padded, builder.ints(FAR, "far"), positions], "key_positions")


def _shape_like(keys: ir.Value, view: View, builder: Builder) -> ir.Value:
    """``keys`` with ones between batch and sequence, of the consumer's rank; cast to the view's dtype."""
    rank = max((len(v.shape) for v in view.consumer.inputs if v is not None and v.shape is not None), default=0)
    unsqueezes = _unsqueezed_rank(view)
    rank = max(rank, unsqueezes, 2)
    shaped = keys
    if rank > 2:
        axes = builder.ints(list(range(1, rank - 1)), f"axes_{rank}")
        shaped = builder.op("Unsqueeze", [keys, axes], f"key_positions/rank_{rank}")
    dtype = view.value.dtype
    if dtype is not None and dtype != ir.DataType.INT64:
        shaped = builder.op("Cast", [shaped], f"key_positions/rank_{rank}/cast", {"to": int(dtype)}, dtype=dtype)
    return shaped


def _unsqueezed_rank(view: View) -> int:
    """The rank that the view's own reshaping gives it."""
    node = view.value.producer()
    if node is None or node.op_type == "Range":
        return 1
    if node.op_type == "Reshape":
        return len(constant_ints(node.inputs[1]) or ())
    inner = View(node.inputs[0], view.consumer, 0) if node.inputs and node.inputs[0] is not None else None
    base = _unsqueezed_rank(inner) if inner is not None else 0
    grown = of(node).ranks
    return base + grown * len(constant_ints(node.inputs[1]) or ()) if grown and len(node.inputs) > 1 else base
