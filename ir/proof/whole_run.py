"""Finds values that all tokens of a run decide together: a token's logits then depend on what else the run holds."""

from __future__ import annotations

import onnx_ir as ir

from ..core.dataflow import reached
from ..core.operators import of
from ..core.scopes import all_nodes, holders


def scales_of_runs(model: ir.Model) -> list[ir.Node]:
    """The operators that take one scale from all tokens of a run, behind some input of the graph."""
    found = [node for node in all_nodes(model) if of(node).whole_scale]
    if not found:
        return []
    main = set(model.graph)
    seen = reached((value for value in model.graph.inputs if not value.is_initializer()), holders(model.graph))
    return [node for node in found if node not in main or node in seen]
