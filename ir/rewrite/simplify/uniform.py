"""Some tensors hold one number everywhere, whatever their shape; this finds it."""

from __future__ import annotations

import onnx_ir as ir

from ...core.operators import names
from ...shapes.infer.declared import tensor_content
from ...shapes.infer.facts import Item
from .scope import Round

MAX_STEPS = 16
SPREADING = names(lambda row: row.keeps_all) - {"Cast"} | {"Slice"}


def uniform(state: Round, value: ir.Value) -> Item | None:
    """The one item of a tensor that is the same everywhere; None where it is not, or not known."""
    for _ in range(MAX_STEPS):
        content = state.content(value)
        if content is not None:
            items = content.items
            return items[0] if items and all(item == items[0] for item in items) else None
        node = value.producer()
        if node is None or node.domain:
            return None
        if node.op_type == "ConstantOfShape":
            return _fill(node)
        source = state.read(node)[0] if node.op_type in SPREADING else None
        if source is None:
            return None
        value = source
    return None


def _fill(node: ir.Node) -> Item | None:
    attr = node.attributes.data.get("value")
    if attr is None:
        return 0
    content = None if attr.value is None else tensor_content(attr.value)
    return None if content is None or not content.items else content.items[0]
