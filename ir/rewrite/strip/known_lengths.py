"""Lengths that are known once the past is gone become constants of the fused operators that read them."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from ...shapes.infer import Trust, propagate
from ...states.base import Layout, State
from ..builder import Builder


def fix_known_lengths(model: ir.Model, states: Iterable[State], builder: Builder) -> int:
    """Makes integer operands of the states' fused operators initializers where they are known; returns how many.

    A total length that was past + 1 is now 1. onnxruntime follows such sums through Cast with the wrong type and
    refuses the graph, so the sum must not stay.
    """
    nodes = {id(s.update): s.update for s in states if s.layout is Layout.FUSED and s.update is not None}
    if not nodes:
        return 0
    facts = propagate(model, trust=Trust.INPUTS)
    fixed = 0
    for node in nodes.values():
        for place, value in enumerate(node.inputs):
            content = facts.ints(value) if value is not None and value.producer() is not None else None
            if value is None or content is None or not content.concrete:
                continue
            tensor = ir.Tensor(content.numpy(), dtype=content.dtype)
            node.replace_input_with(place, builder.constant(tensor, f"{value.name}/known"))
            fixed += 1
    return fixed
