"""Whether a recurrence may begin with zeros: a running maximum, or what is divided by, may not."""

from __future__ import annotations

import onnx_ir as ir

from ..core.constants import constant_of
from ..core.operators.walks import EXTREMES, NO_ZERO, PARTS, STATE_SUMMED
from .base import Layout, State
from .trace import backward, is_layout

MAX_VISITS = 2000
MAX_SUMS = 2  # sums and products between a state and what compares it: log-sum-exp decays it once, then compares


def not_neutral(state: State) -> ir.Node | None:
    """The first node that gives something else of a zero in ``state`` than of a state that holds nothing, or None.

    The larger of two computed numbers, a logarithm, or a quotient by the state. What lies behind more than two sums
    or products is the model's own reading of the state, and no part of its update.
    """
    if state.input is None or state.layout is not Layout.RECURRENT or state.kind == "length":
        return None
    work: list[tuple[ir.Value, int]] = [(state.input, 0)]
    seen = {id(state.input)}
    while work and len(seen) < MAX_VISITS:
        value, sums = work.pop(0)
        for node, index in value.uses():
            if node.domain:
                continue
            if _compares(node, index, summed=sums > 0):
                return node
            moves = is_layout(node) or (node.op_type in PARTS and index == 0)
            if not moves and (node.op_type not in STATE_SUMMED or sums == MAX_SUMS):
                continue
            for output in node.outputs:
                if id(output) not in seen:
                    seen.add(id(output))
                    work.append((output, sums + (not moves)))
    return None


def _compares(node: ir.Node, index: int, *, summed: bool) -> bool:
    """True for the larger of two computed numbers; where nothing was added, for a logarithm or a quotient by it too."""
    if node.op_type in EXTREMES:
        others = [value for place, value in enumerate(node.inputs) if place != index and value is not None]
        return any(constant_of(backward(value)[0]) is None for value in others)
    return not summed and (node.op_type in NO_ZERO or (node.op_type == "Div" and index == 1))
