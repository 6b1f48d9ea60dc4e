"""Finds values that all tokens of a run decide together: a token's logits then depend on what else the run holds."""

from __future__ import annotations

import onnx_ir as ir

from ..core.dataflow import reached
from ..core.scopes import all_nodes, holders

_SCALES: frozenset[tuple[str, str]] = frozenset(
    {
        ("", "DynamicQuantizeLinear"),
        ("com.microsoft", "DynamicQuantizeMatMul"),
        ("com.microsoft", "DynamicQuantizeLSTM"),
    }
)
"""Operators that take one scale from a whole tensor (ONNX DynamicQuantizeLinear-11; onnxruntime's fused forms)."""


def scales_of_runs(model: ir.Model) -> list[ir.Node]:
    """The operators that take one scale from all tokens of a run, behind some input of the graph."""
    found = [node for node in all_nodes(model) if (node.domain, node.op_type) in _SCALES]
    if not found:
        return []
    main = set(model.graph)
    seen = reached((value for value in model.graph.inputs if not value.is_initializer()), holders(model.graph))
    return [node for node in found if node not in main or node in seen]
