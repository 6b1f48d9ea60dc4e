"""64-bit integers become 32-bit ones from chosen inputs on, as far as operators take them and bounds allow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from ..core.constants import constant_of
from ..core.operators.walks import INT32_KERNELS
from ..core.scopes import bodies, nested
from ..shapes.int_bounds import MOST_ELEMENTS, Bounds
from .builder import INT64, Builder

INT32 = ir.DataType.INT32
LIMITS = np.iinfo(np.int32)


class Narrowing:
    """Narrows one graph: values keep their names and become int32; a Cast stands where int64 is still needed."""

    def __init__(self, model: ir.Model, bounds: Mapping[ir.Value, Bounds], owner: str) -> None:
        """Bounds are those of the graph as it is now; nothing is changed yet."""
        self.model, self.bounds, self.builder = model, bounds, Builder(model.graph, owner)
        self.opset = model.opset_imports.get("", 0)
        self.narrowed: set[ir.Value] = set()
        self.casts = self.nodes = 0

    def run(self, inputs: Iterable[ir.Value]) -> None:
        """Makes ``inputs`` int32 and follows them through the graph, in its order."""
        for value in inputs:
            self._start(value)
        for node in list(self.model.graph):
            if any(value in self.narrowed for value in node.inputs):
                self._visit(node)
            for body in bodies(node):
                self._widen_captured(node, body)

    def narrow_output(self, index: int) -> bool:
        """Makes one int64 output of the graph int32, where its bounds fit; says whether it is int32 now."""
        value = self.model.graph.outputs[index]
        maker = value.producer()
        if value in self.narrowed or value.dtype is not INT64 or maker is None or not self._fits(value):
            return value in self.narrowed
        cast, name = self._cast_of(value, f"{value.name}/int64", INT32), value.name
        self.builder.place_end()
        value.name, cast.name = cast.name, name
        self.model.graph.outputs[index] = cast
        return True

    def _fits(self, value: ir.Value) -> bool:
        known = self.bounds.get(value)
        if known is None and (tensor := constant_of(value)) is not None and tensor.size <= MOST_ELEMENTS:
            known = int(tensor.numpy().min(initial=0)), int(tensor.numpy().max(initial=0))
        return known is not None and LIMITS.min <= known[0] and known[1] <= LIMITS.max

    def _start(self, value: ir.Value) -> None:
        value.type = ir.TensorType(INT32)
        self.narrowed.add(value)

    def _visit(self, node: ir.Node) -> None:
        """Narrows what a node computes of narrowed operands, type by type, or gives it int64 ones."""
        for group in _groups(node, self.opset):
            values = [node.inputs[index] for index in group.inputs]
            if not any(value in self.narrowed for value in values):
                continue
            made = [node.outputs[index] for index in group.outputs]
            others = [value for value in values if value is not None and value not in self.narrowed]
            if not group.narrow or not all(map(self._fits, (*others, *made))):
                self._widen(node, group.inputs)
                continue
            self.nodes += 1
            for index, value in zip(group.inputs, values, strict=True):
                if value in others:
                    node.replace_input_with(index, self._narrow(node, value))
            for value in made:
                self._start(value)
        self._follow_cast(node)

    def _follow_cast(self, node: ir.Node) -> None:
        """A Cast of narrow integers to int64 leaves them narrow."""
        to = node.attributes.get("to")
        widens = node.op_type == "Cast" and not node.domain and to is not None and ir.DataType(to.as_int()) is INT64
        if widens and node.inputs[0] in self.narrowed:
            node.attributes["to"] = ir.AttrInt64("to", INT32)
            self._start(node.outputs[0])

    def _widen(self, node: ir.Node, places: Iterable[int]) -> None:
        for index in places:
            value = node.inputs[index]
            if value is not None and value in self.narrowed:
                node.replace_input_with(index, self._cast(node, value, INT64))

    def _widen_captured(self, node: ir.Node, body: ir.Graph) -> None:
        """What a body reads of the graph around it stays int64."""
        for scope in nested(body):
            for inner in scope:
                for index, value in enumerate(inner.inputs):
                    if value is not None and value in self.narrowed:
                        inner.replace_input_with(index, self._cast(node, value, INT64))

    def _narrow(self, node: ir.Node, value: ir.Value | None) -> ir.Value:
        assert value is not None, "an operand that is there was chosen"
        tensor = constant_of(value)
        if tensor is None:
            return self._cast(node, value, INT32)
        content = tensor.numpy().astype(np.int32)
        return self.builder.share(
            (INT32, id(value)), lambda: self.builder.constant(ir.Tensor(content), f"{value.name}/int32")
        )

    def _cast(self, node: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """``value`` as ``dtype``, made before ``node``, which is the first that wants it."""

        def make() -> ir.Value:
            return self._cast_of(value, f"{value.name}/{dtype.name.lower()}", dtype)

        made = self.builder.share((dtype, id(value)), make)
        self.builder.place_before(node)
        return made

    def _cast_of(self, value: ir.Value, name: str, dtype: ir.DataType) -> ir.Value:
        self.casts += 1
        cast = self.builder.op("Cast", [value], name, {"to": dtype}, dtype=dtype)
        cast.shape = value.shape
        return cast


@dataclass(frozen=True)
class Group:
    """The inputs and outputs of a node that have one element type, and whether that may be int32."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    narrow: bool


def _groups(node: ir.Node, opset: int) -> Iterator[Group]:
    """By the types of the operator's schema; all of a node that is none of the operators known here is one group."""
    known = not node.domain and node.op_type in INT32_KERNELS
    if not known:
        yield Group(tuple(range(len(node.inputs))), (), narrow=False)
        return
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    allowed = {row.type_param_str: "tensor(int32)" in row.allowed_type_strs for row in schema.type_constraints}
    sides = ((schema.inputs, len(node.inputs)), (schema.outputs, len(node.outputs)))
    types = [[formals[min(i, len(formals) - 1)].type_str for i in range(count)] for formals, count in sides]
    for kind in dict.fromkeys(types[0]):
        places = [tuple(i for i, other in enumerate(side) if other == kind) for side in types]
        yield Group(places[0], places[1], allowed.get(kind, False))
