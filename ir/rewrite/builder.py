"""New nodes and constants at the head of a graph, named after the pass and what they serve."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

Source = int | tuple[ir.Value, int]
"""A dimension to emit: a number, or an axis of a value that is there at run time."""


class Constants(enum.Enum):
    """How constants are held."""

    INITIALIZERS = "initializers"
    NODES = "nodes"


@dataclass
class Head:
    """Emits at the head of ``graph``; every node carries ``pass`` in its metadata, equal requests share one node.

    Attributes:
        graph: The main graph, or a function's body.
        owner: The pass's kebab name, first part of every new name.
        constants: A function's body has no initializers, so its constants are nodes.
    """

    graph: ir.Graph
    owner: str
    constants: Constants = Constants.INITIALIZERS
    _nodes: list[ir.Node] = field(default_factory=list[ir.Node])
    _memo: dict[tuple[object, ...], ir.Value] = field(default_factory=dict[tuple[object, ...], ir.Value])
    _names: set[str] = field(default_factory=set[str])

    def ints(self, numbers: Sequence[int] | int, name: str) -> ir.Value:
        """An int64 initializer holding ``numbers`` (a scalar for a bare int)."""
        key = ("ints", tuple(numbers) if not isinstance(numbers, int) else numbers)
        if key not in self._memo:
            array = np.asarray(numbers, dtype=np.int64)
            self._memo[key] = self.constant(ir.Tensor(array), name)
        return self._memo[key]

    def constant(self, tensor: ir.Tensor[Any], name: str) -> ir.Value:
        """An initializer (or Constant node) of the graph holding ``tensor``."""
        if self.constants is Constants.NODES:
            return self.op("Constant", [], name, {"value": tensor}, tensor.shape.numpy(), tensor.dtype)
        name = self._fresh(name)
        value = ir.Value(
            name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        tensor.name = name
        self.graph.register_initializer(value)
        return value

    def dims(self, sources: Sequence[Source], name: str) -> ir.Value:
        """A 1-D int64 value holding the given dimensions; an initializer where all are numbers."""
        if all(isinstance(source, int) for source in sources):
            return self.ints([int(source) for source in sources if isinstance(source, int)], name)
        key = ("dims", tuple(s if isinstance(s, int) else (id(s[0]), s[1]) for s in sources))
        if key not in self._memo:
            parts = [self.ints([s], f"{s}") if isinstance(s, int) else self._axis(*s) for s in sources]
            self._memo[key] = (
                parts[0] if len(parts) == 1 else self.op("Concat", parts, name, {"axis": 0}, (len(parts),))
            )
        return self._memo[key]

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        attributes: dict[str, object] | None = None,
        shape: Sequence[int | str] | None = None,
        dtype: ir.DataType = ir.DataType.INT64,
    ) -> ir.Value:
        """The output of a new ONNX node; placed in the graph by :meth:`place`."""
        name = self._fresh(name)
        converted = ir.convenience.convert_attributes(attributes or {})  # pyright: ignore[reportArgumentType]
        node = ir.Node("", op_type, inputs, converted, name=name)
        node.metadata_props["pass"] = self.owner
        node.outputs[0].name = name
        node.outputs[0].type = ir.TensorType(dtype)
        node.outputs[0].shape = ir.Shape(list(shape)) if shape is not None else None
        self._nodes.append(node)
        return node.outputs[0]

    def place(self) -> None:
        """Puts what was emitted at the head of the graph."""
        nodes, self._nodes = self._nodes, []
        if not nodes:
            return
        anchor = next(iter(self.graph), None)
        if anchor is None:
            self.graph.extend(nodes)
        else:
            self.graph.insert_before(anchor, nodes)

    def _axis(self, value: ir.Value, axis: int) -> ir.Value:
        key = ("axis", id(value), axis)
        if key not in self._memo:
            rank = len(value.shape) if value.shape is not None else 0
            shape_key = ("shape", id(value))
            if shape_key not in self._memo:
                self._memo[shape_key] = self.op("Shape", [value], f"{value.name}/shape", shape=(rank,))
            index = self.ints([axis], f"{axis}")
            self._memo[key] = self.op(
                "Gather", [self._memo[shape_key], index], f"{value.name}/dim_{axis}", {"axis": 0}, (1,)
            )
        return self._memo[key]

    def _fresh(self, name: str) -> str:
        """``<pass>/<name>``, made unique in the graph."""
        if not self._names:
            self._names.update(v.name or "" for v in self.graph.inputs)
            self._names.update(self.graph.initializers)
            for node in self.graph:
                self._names.update(v.name or "" for v in node.outputs)
        base = candidate = f"{self.owner}/{name}"
        number = 1
        while candidate in self._names:
            number += 1
            candidate = f"{base}_{number}"
        self._names.add(candidate)
        return candidate
