"""Tensors lie in initializers and attributes of every scope; each place can be read and replaced here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class InitializerSlot:
    """The tensor of an initializer."""

    value: ir.Value
    tensor: ir.TensorProtocol

    @property
    def name(self) -> str:
        """What the file calls the tensor."""
        return self.value.name or ""

    def put(self, tensor: ir.TensorProtocol) -> None:
        """Replaces the tensor."""
        self.value.const_value = tensor


@dataclass(frozen=True)
class AttributeSlot:
    """A tensor in a node's attribute; ``index`` where the attribute is a list of tensors."""

    node: ir.Node
    attribute: ir.Attr
    tensor: ir.TensorProtocol
    index: int | None = None

    @property
    def name(self) -> str:
        """What the file calls the tensor."""
        return self.tensor.name or f"{self.node.name}.{self.attribute.name}"

    def put(self, tensor: ir.TensorProtocol) -> None:
        """Replaces the tensor, and leaves the attribute's other tensors as they are."""
        name, doc = self.attribute.name, self.attribute.doc_string
        if self.index is None:
            self.node.attributes[name] = ir.AttrTensor(name, tensor, doc_string=doc)
            return
        tensors = list(self.node.attributes[name].as_tensors())
        tensors[self.index] = tensor
        self.node.attributes[name] = ir.AttrTensors(name, tensors, doc_string=doc)


Slot = InitializerSlot | AttributeSlot


def tensor_slots(model: ir.Model, *, attributes: bool = True) -> Iterator[Slot]:
    """Every initializer and every external tensor in an attribute, in a fixed order, found in one walk.

    Without ``attributes`` only the main graph's initializers, without a walk.
    """
    yield from _initializers(model.graph)
    if not attributes:
        return
    yield from _node_slots(model.graph)
    for function in model.functions.values():
        yield from _node_slots(function)


def _initializers(graph: ir.Graph) -> Iterator[Slot]:
    for value in list(graph.initializers.values()):
        if value.const_value is not None:
            yield InitializerSlot(value, value.const_value)


def _node_slots(nodes: Iterable[ir.Node]) -> Iterator[Slot]:
    for node in nodes:
        for attribute in node.attributes.values():
            find = _HOLDERS.get(attribute.type)
            # .value, not as_tensor(): that one checks a protocol, at 0.1 ms a constant
            if find is not None and attribute.value is not None:
                yield from find(node, attribute)


def _tensor_slot(node: ir.Node, attribute: ir.Attr) -> list[Slot]:
    return [AttributeSlot(node, attribute, attribute.value)] if isinstance(attribute.value, ir.ExternalTensor) else []


def _tensors_slots(node: ir.Node, attribute: ir.Attr) -> list[Slot]:
    tensors = enumerate(attribute.as_tensors())
    return [
        AttributeSlot(node, attribute, tensor, index)
        for index, tensor in tensors
        if isinstance(tensor, ir.ExternalTensor)
    ]


def _graph_slots(node: ir.Node, attribute: ir.Attr) -> Iterator[Slot]:
    graphs = [attribute.as_graph()] if attribute.type is ir.AttributeType.GRAPH else attribute.as_graphs()
    for graph in graphs:
        yield from _initializers(graph)
        yield from _node_slots(graph)


_HOLDERS: dict[ir.AttributeType, Callable[[ir.Node, ir.Attr], Iterable[Slot]]] = {
    ir.AttributeType.TENSOR: _tensor_slot,
    ir.AttributeType.TENSORS: _tensors_slots,
    ir.AttributeType.GRAPH: _graph_slots,
    ir.AttributeType.GRAPHS: _graph_slots,
}


def moved_tensor(
    tensor: ir.TensorProtocol, name: str, location: str, span: tuple[int | None, int | None], base_dir: str
) -> ir.ExternalTensor:
    """An external tensor of ``tensor``'s type and shape at ``location``, bytes ``span`` = (offset, length)."""
    return ir.ExternalTensor(
        location,
        offset=span[0],
        length=span[1],
        dtype=tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
        base_dir=base_dir,
    )
