"""Adds nodes and constants behind a graph's own: each is named by a number, equal constants are shared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir


class Tail:
    """Emits nodes that go behind all others; for graphs that are run and thrown away."""

    def __init__(self, graph: ir.Graph, owner: str) -> None:
        self.graph = graph
        self.owner = owner
        self.nodes: list[ir.Node] = []
        self._constants: dict[tuple[str, bytes], ir.Value] = {}

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        dtype: ir.DataType = ir.DataType.FLOAT,
        **attributes: int | str | Sequence[int],
    ) -> ir.Value:
        """The output of a new node."""
        name = f"{self.owner}/node_{len(self.nodes)}"
        node = ir.Node("", op_type, inputs, ir.convenience.convert_attributes(attributes), name=name)
        node.outputs[0].name, node.outputs[0].type = f"{name}/out", ir.TensorType(dtype)
        self.nodes.append(node)
        return node.outputs[0]

    def scalar(self, number: float) -> ir.Value:
        """A float constant."""
        return self.constant(np.asarray(number, np.float32))

    def ints(self, numbers: Sequence[int]) -> ir.Value:
        """An int64 vector."""
        return self.constant(np.asarray(numbers, np.int64))

    def constant(self, array: np.ndarray) -> ir.Value:
        """An initializer."""
        key = (f"{array.dtype}{array.shape}", array.tobytes())
        if key not in self._constants:
            name = f"{self.owner}/constant_{len(self._constants)}"
            value = ir.Value(name=name, const_value=ir.tensor(array, name=name), shape=ir.Shape(array.shape))
            value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
            self.graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def output(self, value: ir.Value, name: str, shape: Sequence[int | None]) -> None:
        """Makes a new value a graph output of that name."""
        value.name, value.shape = name, ir.Shape(list(shape))
        self.graph.outputs.append(value)

    def place(self) -> None:
        """Puts the nodes behind the graph's own."""
        self.graph.extend(self.nodes)
        self.nodes = []
