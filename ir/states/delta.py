"""States whose new rows alone leave the graph: the host owns the cache and appends them."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

import onnx_ir as ir

from ..core.operators.walks import PICKS
from ..symbolic.symbols import dims_of
from .base import Layout, State
from .trace import backward, forward

_PICKS = PICKS - {"Split"}  # whose other results are rows as well


def match(state: State, outputs: Container[int]) -> State | None:
    """``state``, whose whole is no output, as delta where the new rows are an output; else None."""
    search = _SEARCHES.get(state.layout)
    return search(state, outputs) if search is not None else None


def _beside(state: State, outputs: Container[int]) -> State | None:
    """Append, scatter: what the update takes of this run is an output."""
    if state.new is None:
        return None
    start, _ = backward(state.new)
    for path in (*forward(state.new), *forward(start)):
        if id(path.value) in outputs:
            return _as_delta(state, path.value)
    return None


def _picked(state: State, outputs: Container[int]) -> State | None:
    """Fused: rows picked out of the present are an output; as many as the past has would be a window, and no delta."""
    for path in forward(state.carried) if state.carried is not None else ():
        for node in (use.node for use in path.value.uses() if use.idx == 0 and use.node.op_type in _PICKS):
            for end in forward(node.outputs[0]):
                if id(end.value) in outputs and _has_other_rows(state, end.value):
                    return _as_delta(state, end.value)
    return None


_SEARCHES: Mapping[Layout, Callable[[State, Container[int]], State | None]] = {
    Layout.APPEND: _beside,
    Layout.SCATTER: _beside,
    Layout.FUSED: _picked,
}
"""Layouts whose whole cache a graph may keep to itself, the new rows alone leaving."""


def _as_delta(state: State, output: ir.Value) -> State:
    state.layout, state.output = Layout.DELTA, output
    state.evidence += ", and only the new rows leave the graph"
    return state


def _has_other_rows(state: State, output: ir.Value) -> bool:
    before, after = dims_of(state.input) if state.input is not None else None, dims_of(output)
    if before is None or after is None or state.axis is None or len(before) != len(after):
        return False
    past, new = before[state.axis], after[state.axis]
    return past is not None and new is not None and past != new
