"""The inputs, outputs and attributes of one node are read here, optional ones included."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ...core.constants import constant_of
from .emitter import Unfit


@dataclass(frozen=True)
class Ports:
    """Reads one node by the places and names of its operator's schema."""

    node: ir.Node

    def input(self, index: int) -> ir.Value | None:
        """Input ``index``, None where it is absent."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def need(self, index: int, name: str) -> ir.Value:
        """Input ``index``; raises Unfit where it is absent."""
        value = self.input(index)
        if value is None:
            raise Unfit(f"it has no input {name}")
        return value

    def wanted(self, index: int) -> bool:
        """True where output ``index`` is used, or leaves the graph."""
        if index >= len(self.node.outputs):
            return False
        value = self.node.outputs[index]
        return bool(value.uses()) or value.is_graph_output()

    def int(self, name: str, default: int = 0) -> int:
        """An integer attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_int()

    def float(self, name: str, default: float = 0.0) -> float:
        """A float attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_float()

    def text(self, name: str, default: str = "") -> str:
        """A string attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_string()

    def ints(self, name: str) -> list[int] | None:
        """A list attribute, None where it is absent."""
        attribute = self.node.attributes.get(name)
        return None if attribute is None else list(attribute.as_ints())


def constant(value: ir.Value | None, what: str) -> ir.TensorProtocol:
    """The tensor of a constant; raises Unfit where the value is computed at run time."""
    tensor = constant_of(value)
    if tensor is None:
        raise Unfit(f"{what} is computed at run time")
    return tensor
