"""Counts the tensors that constants describe before a library that evaluates shapes would build them."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from ..core.operators import names
from .infer import Facts

MAX_SPREAD = 1 << 20  # items of all one-dimensional tensors that shape inference would follow, one message each
_MAKERS = names(lambda row: row.grows)
_BEGIN = names(lambda row: row.spreads)


def is_spread_small(model: ir.Model, facts_of: Callable[[], Facts]) -> bool:
    """False where shape inference with contents would follow tensors of more than MAX_SPREAD items.

    onnx (1.23) follows the content of one-dimensional integer tensors as if each were a shape, an object an item. Sizes
    are counted by our own inference, which knows them without building anything; ``facts_of`` is called
    only where the graph has an operator that makes large tensors of small ones.
    """
    kinds = {node.op_type for node in model.graph}
    doubled = sum(len(set(node.inputs)) < len(node.inputs) for node in model.graph if node.op_type == "Concat")
    if not kinds & _BEGIN and doubled < 2:
        return True
    facts = facts_of()
    total = 0
    for node in model.graph:
        shape = facts.shape(node.outputs[0]) if node.op_type in _MAKERS else None
        if shape is not None and len(shape) == 1 and isinstance(shape[0], int):
            total += shape[0]
    return total <= MAX_SPREAD
