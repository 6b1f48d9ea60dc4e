"""Reads the tensor of a constant value without touching it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir


def constant_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer or of a Constant node's output; None where the value is not known before a run.

    ``onnx_ir.convenience.get_const_tensor`` gives the same, but renames the tensor on the way, so that merely looking
    at a graph changes the bytes it is saved as.
    """
    if value is None or value.const_value is not None:
        return value.const_value if value is not None else None
    node = value.producer()
    if node is None or node.op_type != "Constant" or node.domain or len(node.attributes) != 1:
        return None
    name, attribute = next(iter(node.attributes.items()))
    if attribute.is_ref() or name not in _READERS:
        return None
    return _READERS[name](attribute)


def _array(dtype: type[np.generic]) -> Callable[[ir.Attr], ir.TensorProtocol]:
    def read(attribute: ir.Attr) -> ir.TensorProtocol:
        content: Any = attribute.value
        return ir.tensor(np.asarray(content, dtype))

    return read


def _tensor(attribute: ir.Attr) -> ir.TensorProtocol:
    # as_tensor holds the value against a protocol, member by member: a third of a second for a graph of 30 layers
    content: Any = attribute.value
    return content if attribute.type is ir.AttributeType.TENSOR else attribute.as_tensor()


_READERS: Mapping[str, Callable[[ir.Attr], ir.TensorProtocol]] = {
    "value": _tensor,
    "value_int": _array(np.int64),
    "value_ints": _array(np.int64),
    "value_float": _array(np.float32),
    "value_floats": _array(np.float32),
}
