"""Emits nodes beside the head: right before a node, or right after the value they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from .builder import Head

INT64 = ir.DataType.INT64


@dataclass
class Site(Head):
    """Emits like its base; what was emitted goes where it is used, equal requests share what was placed first."""

    def place_before(self, anchor: ir.Node) -> None:
        """Puts what was emitted before ``anchor``."""
        nodes, self._nodes = self._nodes, []
        if nodes:
            self.graph.insert_before(anchor, nodes)

    def place_after(self, value: ir.Value) -> None:
        """Puts what was emitted behind the node that makes ``value``; at the head where it is an input."""
        node = value.producer()
        if node is None:
            return self.place()
        nodes, self._nodes = self._nodes, []
        if nodes:
            self.graph.insert_after(node, nodes)
        return None

    def typed(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        name: str,
        attributes: dict[str, object],
        shape: Sequence[int | str],
        dtype: ir.DataType | None,
    ) -> ir.Value:
        """Like :meth:`op`, for an element type that may be unknown: then nothing is declared."""
        value = self.op(op_type, inputs, name, attributes, shape, dtype or INT64)
        if dtype is None:
            value.type = value.shape = None
        return value

    def cast(self, value: ir.Value, dtype: ir.DataType, name: str) -> ir.Value:
        """``value`` as ``dtype``; itself where it is that already."""
        return value if value.dtype == dtype else self.op("Cast", [value], name, {"to": int(dtype)}, dtype=dtype)

    def unsqueeze(self, value: ir.Value, axes: Sequence[int], name: str) -> ir.Value:
        """``value`` with new axes of one."""
        operands = [value, self.ints(list(axes), "axes_" + "_".join(map(str, axes)))]
        return self.op("Unsqueeze", operands, name, dtype=value.dtype or INT64)
