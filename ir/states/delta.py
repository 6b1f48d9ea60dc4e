"""States whose new rows alone leave the graph: the host owns the cache and appends them."""

from __future__ import annotations

from collections.abc import Container

from .base import Layout, State
from .walk import backward, forward


def match(state: State, outputs: Container[int]) -> State | None:
    """``state`` (found as append, its whole not an output) as delta where the new rows are an output; else None."""
    if state.new is None:
        return None
    start, _ = backward(state.new)
    for trail in (*forward(state.new), *forward(start)):
        if id(trail.value) in outputs:
            state.layout = Layout.DELTA
            state.output = trail.value
            state.evidence += ", and only the new rows leave the graph"
            return state
    return None
