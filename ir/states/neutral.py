"""Whether a recurrence may begin with zeros: a running maximum or product, or what is divided by, may not."""

from __future__ import annotations

import onnx_ir as ir

from ..core.constants import constant_of
from ..core.operators.walks import EXTREMES, NO_ZERO, ORDERS, PARTS, STATE_SUMMED
from .base import Layout, State
from .trace import backward, is_layout

MAX_VISITS = 2000
MAX_SUMS = 2  # sums and products between a state and what compares it: log-sum-exp decays it once, then compares


def not_neutral(state: State) -> ir.Node | None:
    """The first node that gives something else of a zero in ``state`` than of a state that holds nothing, or None.

    The larger of two computed numbers, chosen or compared, a logarithm, a quotient by the state, or products alone
    between the state and its next value: they would keep it at zero for ever. What lies behind more than two sums
    or products is the model's own reading of the state, and no part of its update.
    """
    if state.input is None or state.layout is not Layout.RECURRENT or state.kind == "length":
        return None
    if (product := _only_multiplied(state)) is not None:
        return product
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


def _only_multiplied(state: State) -> ir.Node | None:
    """The product that gives the state's next value, where nothing is ever added to the state."""
    value, product = state.output, None
    for _ in range(MAX_VISITS):
        node = value.producer() if value is not None else None
        if node is None or node.domain:
            return product if value is state.input else None
        if node.op_type == "Mul":
            sides = [side for side in node.inputs if side is not None and constant_of(backward(side)[0]) is None]
            held = [side for side in sides if backward(side)[0] is state.input]
            value, product = (held or sides or [None])[0], node
        elif is_layout(node):
            value = node.inputs[0]
        else:
            return None
    return None


def _compares(node: ir.Node, index: int, *, summed: bool) -> bool:
    """True for the larger of two computed numbers; where nothing was added, for a logarithm or a quotient by it too."""
    chosen = node.op_type in ORDERS and any(user.op_type == "Where" for user, _ in node.outputs[0].uses())
    if node.op_type in EXTREMES or chosen:
        others = [value for place, value in enumerate(node.inputs) if place != index and value is not None]
        return any(constant_of(backward(value)[0]) is None for value in others)
    return not summed and (node.op_type in NO_ZERO or (node.op_type == "Div" and index == 1))
