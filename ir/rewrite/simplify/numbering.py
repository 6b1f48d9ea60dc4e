"""Two nodes compute the same where operation, inputs and attributes give one key (value numbering)."""

from __future__ import annotations

import onnx_ir as ir

from ...core.operators import names
from .scope import MAX_BYTES

RANDOM = names(lambda row: row.random)
HASHABLE = frozenset({ir.AttributeType.INT, ir.AttributeType.STRING})
LISTS = frozenset({ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS})


def node_key(node: ir.Node, inputs: list[ir.Value | None]) -> object:
    """The key; None for what must not be merged: randomness, control flow, large attributes."""
    if node.op_type in RANDOM:
        return None
    attributes: list[object] = []
    for name, attr in sorted(node.attributes.data.items()):
        found = _attribute(attr)
        if found is None:
            return None
        attributes.append((name, attr.type, found))
    return (
        node.domain,
        node.op_type,
        node.overload,
        tuple(inputs),
        tuple(attributes),
        tuple(bool(value.name) for value in node.outputs),
    )


def _attribute(attr: ir.Attr) -> object:
    if attr.ref_attr_name is not None:
        return None
    if attr.type is ir.AttributeType.FLOAT:
        return repr(attr.value)  # the negative zero is another number
    if attr.type in HASHABLE:
        return attr.value
    if attr.type in LISTS:
        return repr(attr.value)
    if attr.type is ir.AttributeType.TENSOR and not isinstance(attr.value, ir.ExternalTensor):
        tensor: ir.TensorProtocol = attr.value
        return (tensor.dtype, tuple(tensor.shape), tensor.tobytes()) if tensor.nbytes <= MAX_BYTES else None
    return None
