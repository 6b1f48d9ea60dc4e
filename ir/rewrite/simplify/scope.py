"""A round keeps what it knows while it walks: replacements, constants by content, providers, one table a scope."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from ...shapes.infer import Facts, IntTensor
from ...shapes.infer.context import Context
from ...shapes.infer.declared import tensor_shape
from ..ownership import mark
from .bodies import Bodies

OWNER = "simplify"  # the pass that what is added here names in its metadata
MAX_BYTES = 1024  # a constant beyond this is a weight: never read, never merged
MAX_SHARED = (
    4  # float initializers with more items than this may be weights that happen to be equal: each keeps its name
)

Key = Hashable
Array = np.ndarray[Any, Any]
Values = dict[ir.Value, ir.Value]


@dataclass(slots=True)
class Scope:
    """One graph of the model: which content and which computation is there already, and what provides it.

    What it looks up may come from the graphs around it; what it adds stays inside.
    """

    graph: ir.Graph
    own: dict[Key, Any] = field(default_factory=dict[Key, Any])
    outer: tuple[dict[Key, Any], ...] = ()

    def inner(self, graph: ir.Graph) -> Scope:
        """The scope of a subgraph."""
        return Scope(graph, outer=(self.own, *self.outer))

    def get(self, key: Key) -> Any:
        """What provides ``key``; None where nothing does yet."""
        found = self.own.get(key)
        for table in self.outer:
            found = table.get(key) if found is None else found
        return found

    def first(self, key: Key, new: Any) -> Any:
        """What provides ``key``: what was there before, or else ``new``."""
        found = self.get(key)
        if found is None:
            found = self.own[key] = new
        return found


@dataclass(slots=True)
class Round:
    """One round over a model: ``moved`` says what stands in for a value, ``inputs`` what a node will read instead."""

    model: ir.Model
    facts: Facts
    ctx: Context
    graphs: list[ir.Graph]
    bodies: Bodies
    moved: Values = field(default_factory=dict[ir.Value, ir.Value])
    inputs: dict[ir.Node, list[ir.Value | None]] = field(default_factory=dict[ir.Node, list["ir.Value | None"]])
    # new constants: the graph of each, the value that each replaces, and the data of constants old and new
    homes: dict[ir.Value, ir.Graph] = field(default_factory=dict[ir.Value, ir.Graph])
    origins: Values = field(default_factory=dict[ir.Value, ir.Value])
    arrays: dict[ir.Value, Array] = field(default_factory=dict[ir.Value, "Array"])
    # inner values that become a graph output
    names: Values = field(default_factory=dict[ir.Value, ir.Value])
    # Transposes with a new permutation, Reshapes whose 0 copies from now on, nodes that become an Identity
    perms: dict[ir.Node, tuple[int, ...]] = field(default_factory=dict[ir.Node, tuple[int, ...]])
    copying: set[ir.Node] = field(default_factory=set[ir.Node])
    turned: set[ir.Node] = field(default_factory=set[ir.Node])
    # dimensions and symbols that are not 0 in any run that the graph survives
    positive: set[object] = field(default_factory=set[object])
    counts: dict[str, int] = field(default_factory=dict[str, int])

    def current(self, value: ir.Value) -> ir.Value:
        """What stands in for ``value`` by now."""
        return self.moved.get(value, value)

    def count(self, what: str, number: int = 1) -> None:
        """Adds to what this round did."""
        self.counts[what] = self.counts.get(what, 0) + number

    def read(self, node: ir.Node) -> list[ir.Value | None]:
        """The inputs of a node, replacements made."""
        edited = self.inputs.get(node)
        if edited is not None:
            return edited
        moved = self.moved
        return [None if value is None else moved.get(value, value) for value in node.inputs]

    def content(self, value: ir.Value | None) -> IntTensor | None:
        """The content of a value as the sweep found it."""
        return None if value is None else self.facts.contents.get(value)

    def constant(self, scope: Scope, tensor: IntTensor, origin: ir.Value) -> ir.Value:
        """The value that holds this content in reach of ``scope``; a new one takes ``origin``'s name."""
        found = scope.get(tensor)
        if found is None:
            found = self.fresh_constant(scope, ir.Tensor(tensor.numpy(), dtype=tensor.dtype), origin)
            self.facts.contents[found] = tensor
            self.facts.shapes[found] = tensor.shape
            scope.own[tensor] = found
        return found

    def target(self, scope: Scope, tensor: IntTensor, node: ir.Node) -> ir.Value:
        """The constant that a node reads in the place of computed sizes; a new one is named after the node's output."""
        output = node.outputs[0]
        fresh = scope.get(tensor) is None
        value = self.constant(scope, tensor, output)
        if fresh:
            value.name = f"{output.name}_shape"
        return value

    def numeric(self, scope: Scope, array: Array, dtype: ir.DataType, origin: ir.Value) -> ir.Value:
        """The value that holds this array in reach of ``scope``."""
        key = (dtype, array.shape, array.tobytes())
        found = scope.get(key)
        if found is None:
            found = self.fresh_constant(
                scope, ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), dtype=dtype), origin
            )
            self.facts.shapes[found] = array.shape
            self.arrays[found] = array
            scope.own[key] = found
        return found

    def fresh_constant(self, scope: Scope, tensor: ir.TensorProtocol, origin: ir.Value) -> ir.Value:
        """A new constant in the place of ``origin``; it becomes an initializer once something live uses it."""
        value = ir.Value(
            name=origin.name, shape=ir.Shape(tensor_shape(tensor)), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        mark(value, OWNER)
        self.homes[value] = scope.graph
        self.origins[value] = origin
        return value
