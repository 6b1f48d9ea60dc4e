"""Lists operators that some versions of onnxruntime compute wrongly: nothing is to be compared with those."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from ...ir.core.scopes import all_nodes

Version = tuple[int, ...]
VALID = 6  # Attention's input nonpad_kv_seqlen


@dataclass(frozen=True)
class Fault:
    """One kernel's fault: of which operator, when it matters, and the first version without it."""

    operator: str
    fixed: Version
    matters: Callable[[ir.Node], bool]
    what: str


def _softcap_and_mask(node: ir.Node) -> bool:
    cap = node.attributes.get("softcap")
    return cap is not None and cap.as_float() > 0


def _causal_with_length(node: ir.Node) -> bool:
    causal = node.attributes.get("is_causal")
    given = len(node.inputs) > VALID and node.inputs[VALID] is not None
    return given and causal is not None and causal.as_int() == 1


FAULTS = (
    Fault("Attention", (1, 27), _softcap_and_mask, "the mask is added before the soft cap, so masked keys keep weight"),
    Fault("Attention", (1, 28), _causal_with_length, "is_causal is aligned to the top left of a static cache"),
)
"""Measured: 1.24.4, 1.25.1 and 1.26.0 beside 1.27.0, 1.28.0, 1.30.0 and 1.32.0 (onnx 1.23.2's text)."""


def fault_of(model: ir.Model, version: str) -> str:
    """What onnxruntime ``version`` computes wrongly in the graph; empty for nothing."""
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    known = [fault for fault in FAULTS if numbers < fault.fixed]
    if not known:
        return ""
    for node in all_nodes(model):
        for fault in known:
            if node.op_type == fault.operator and not node.domain and fault.matters(node):
                return f"onnxruntime {version} computes {node.op_type} {node.name!r} wrongly: {fault.what}"
    return ""
