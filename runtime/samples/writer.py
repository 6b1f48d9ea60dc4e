"""Writes graphs for samples: nodes are named under a scope, constants are nodes, weights are seeded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

Operand = ir.Value | int | float | Sequence[int] | np.ndarray | None
Shape = Sequence[int | str | None]

FLOAT = ir.DataType.FLOAT
INT32 = ir.DataType.INT32
INT64 = ir.DataType.INT64
BOOL = ir.DataType.BOOL
AXES_AS_INPUT = 18  # ReduceMean, ReduceMax … take their axes as an input from this opset on


class Writer:
    """Appends nodes to one graph; numbers among the operands become Constant nodes, as TorchScript writes them."""

    def __init__(self, opset: int = 18, seed: int = 0, ir_version: int = 8) -> None:
        self.opset = opset
        self.ir_version = ir_version
        self.random = np.random.default_rng(seed)
        self.inputs: list[ir.Value] = []
        self.outputs: list[ir.Value] = []
        self.nodes: list[ir.Node] = []
        self.weights: dict[str, ir.Value] = {}
        self.functions: list[ir.Function] = []
        self._scope = ""
        self._counts: dict[str, int] = {}

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Puts the nodes written inside under ``name``, as a module's path."""
        outer = self._scope
        self._scope = f"{outer}/{name}"
        yield
        self._scope = outer

    def input(self, name: str, dtype: ir.DataType, shape: Shape) -> ir.Value:
        """Adds a graph input."""
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.inputs.append(value)
        return value

    def output(self, name: str, value: ir.Value, shape: Shape, dtype: ir.DataType = FLOAT) -> None:
        """Makes ``value`` a graph output under ``name``; a value that already is one gets an Identity of its own."""
        if value.producer() is None or any(value is other for other in self.outputs):
            value = self.op("Identity", value)
        value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape(shape)
        self.outputs.append(value)

    def weight(self, name: str, *shape: int, scale: float | None = None) -> ir.Value:
        """Adds a seeded random float initializer, or gives the one of that name again."""
        if name not in self.weights:
            spread = scale if scale is not None else 1.0 / np.sqrt(shape[0])
            self.initializer(name, (self.random.standard_normal(shape) * spread).astype(np.float32))
        return self.weights[name]

    def initializer(self, name: str, array: np.ndarray) -> ir.Value:
        """Adds an initializer with these values."""
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
        self.weights[name] = value
        return value

    def constant(self, value: int | float | Sequence[int] | np.ndarray) -> ir.Value:
        """Writes a Constant node: INT64 for integers and their lists, FLOAT for a float, an array as it is."""
        dtype = np.float32 if isinstance(value, float) else np.int64
        array = value if isinstance(value, np.ndarray) else np.asarray(value, dtype)
        return self._append("Constant", [], {"value": ir.tensor(array)})

    def op(self, op_type: str, *operands: Operand, domain: str = "", **attributes: Any) -> ir.Value:
        """Writes one node and returns its first output."""
        values = [x if isinstance(x, ir.Value) or x is None else self.constant(x) for x in operands]
        return self._append(op_type, values, attributes, domain)

    def reduce(self, op_type: str, x: ir.Value, axis: int) -> ir.Value:
        """A reduction over one axis, kept; the axis as this opset takes it."""
        if self.opset >= AXES_AS_INPUT:
            return self.op(op_type, x, [axis], keepdims=1)
        return self.op(op_type, x, axes=[axis], keepdims=1)

    def size(self, x: ir.Value, axis: int) -> ir.Value:
        """``x.shape[axis]`` as TorchScript writes it: Shape, then Gather with a scalar index."""
        return self.op("Gather", self.op("Shape", x), axis, axis=0)

    def pack(self, *parts: ir.Value | int) -> ir.Value:
        """A 1-D shape out of scalars: an Unsqueeze each, then Concat."""
        rows = [self.op("Unsqueeze", x, [0]) if isinstance(x, ir.Value) else self.constant([x]) for x in parts]
        return self.op("Concat", *rows, axis=0)

    def unsqueeze(self, x: ir.Value, *axes: int) -> ir.Value:
        """One Unsqueeze for each axis, in order."""
        for axis in axes:
            x = self.op("Unsqueeze", x, [axis])
        return x

    def function(self, domain: str, name: str, body: Writer, inputs: Sequence[ir.Value], output: ir.Value) -> None:
        """Adds a local function whose body was written with ``body``."""
        graph = ir.Graph(inputs, [output], nodes=body.nodes, name=name, opset_imports={"": body.opset})
        self.functions.append(ir.Function(domain, name, graph=graph, attributes={}))

    def model(self, name: str = "main_graph") -> ir.Model:
        """Closes the graph; operator domains that are used are imported."""
        imports = {"": self.opset} | {node.domain: 1 for node in self.nodes if node.domain}
        graph = ir.Graph(
            self.inputs,
            self.outputs,
            nodes=self.nodes,
            initializers=list(self.weights.values()),
            name=name,
            opset_imports=imports,
        )
        return ir.Model(
            graph, ir_version=self.ir_version, producer_name="onnx-llm-passes samples", functions=self.functions
        )

    def _append(
        self, op_type: str, values: Sequence[ir.Value | None], attributes: dict[str, Any], domain: str = ""
    ) -> ir.Value:
        stem = f"{self._scope}/{op_type}"
        number = self._counts.get(stem, 0)
        self._counts[stem] = number + 1
        name = f"{stem}_{number}" if number else stem
        attrs = ir.convenience.convert_attributes(attributes)
        output = ir.Value(name=f"{name}_output_0")
        node = ir.Node(domain, op_type, values, attrs, outputs=[output], name=name)
        self.nodes.append(node)
        return output
