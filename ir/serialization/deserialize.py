"""A parsed model becomes an onnx_ir model; plain graphs are read in two loops that make equal parts once.

``onnx_ir.from_proto`` (1.1.0) asks every field for its presence and builds a shape a value and an attribute a node,
though frozen shapes and attributes may be shared: a third of the time of a graph with value infos. What is not plain
it reads itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir import serde

from .text_check import check_names, check_scope, check_text

_KINDS = {int(kind): kind for kind in ir.AttributeType}
_GRAPHS = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})
_FUNCTION_INFOS, _DEVICES = 10, 11
"""IR versions (onnx 1.17, 1.18): before the first, infos of functions lie in the main graph; the other has devices."""

MAX_SHARED = 128  # bytes of an attribute: sizes, axes and the scalars of a traced graph; weights are never compared


class _NotPlainError(Exception):
    """A graph inside a node, a name given twice or to nothing: onnx_ir reads it, or says what is wrong."""


Look = Callable[[onnx.NodeProto, onnx.AttributeProto], None]


def deserialize(proto: onnx.ModelProto, look: Look = lambda node, attribute: None) -> ir.Model:
    """The model that ``onnx_ir.from_proto`` gives; raises what it raises, and InputError for names that are no text.

    ``look`` sees every attribute of the main graph's nodes before it is read, of equal ones the first.
    """
    check_names((proto.producer_name, proto.producer_version, proto.domain, proto.doc_string))
    if not _looks_plain(proto):
        return _read_whole(proto, look)
    reader = _Reader(proto.graph, look)
    try:
        graph = reader.graph()
    except _NotPlainError:
        return _read_whole(proto, look)
    check_names(reader.names())
    graph.opset_imports.update(serde.deserialize_opset_import(proto.opset_import))
    return ir.Model(
        graph,
        ir_version=proto.ir_version,
        producer_name=_given(proto, "producer_name"),
        producer_version=_given(proto, "producer_version"),
        domain=_given(proto, "domain"),
        model_version=proto.model_version if proto.HasField("model_version") else None,
        doc_string=_given(proto, "doc_string"),
        functions=_functions(proto),
        metadata_props=serde.deserialize_metadata_props(proto.metadata_props),
    )


def _read_whole(proto: onnx.ModelProto, look: Look) -> ir.Model:
    for node in proto.graph.node:
        for attribute in node.attribute:
            look(node, attribute)
    model = ir.from_proto(proto)
    check_text(model)
    return model


def _functions(proto: onnx.ModelProto) -> list[ir.Function]:
    read = [serde.deserialize_function(function) for function in proto.functions]
    for function in read:
        check_scope(function)
    return read


def _looks_plain(proto: onnx.ModelProto) -> bool:
    """False for what needs more than names: functions before IR version 10, devices, annotations of quantization."""
    if proto.ir_version >= _DEVICES and (
        proto.configuration or any(node.device_configurations for node in proto.graph.node)
    ):
        return False
    return not proto.graph.quantization_annotation and not (proto.functions and proto.ir_version < _FUNCTION_INFOS)


def _given(proto: onnx.ModelProto | onnx.GraphProto, name: str) -> str | None:
    return getattr(proto, name) if proto.HasField(name) else None  # pyright: ignore[reportArgumentType]


@dataclass(slots=True)
class _Reader:
    """One main graph on its way: the values by name, and the shapes by their bytes."""

    proto: onnx.GraphProto
    look: Look
    values: dict[str, ir.Value] = field(default_factory=dict[str, ir.Value])
    types: dict[bytes, tuple[ir.Shape, ir.DataType] | None] = field(default_factory=dict[bytes, Any])
    attributes: dict[bytes, ir.Attr] = field(default_factory=dict[bytes, ir.Attr])
    infos: dict[str, onnx.ValueInfoProto] = field(default_factory=dict[str, onnx.ValueInfoProto])
    nodes: list[str] = field(default_factory=list[str])
    words: set[str] = field(default_factory=set[str])

    def names(self) -> Iterator[str]:
        """Every name that was read; operators, domains and attributes once each."""
        return chain((self.proto.name,), self.values, self.nodes, self.words)

    def graph(self) -> ir.Graph:
        """The graph; _NotPlainError where onnx_ir is to read it."""
        proto = self.proto
        inputs = [self.typed(info, ir.Value(name=info.name)) for info in proto.input]
        self.values = {value.name or "": value for value in inputs}
        self.infos = {info.name: info for info in proto.value_info}
        initializers = [self.initializer(_tensor(tensor)) for tensor in proto.initializer]
        self.declare(name for node in proto.node for name in node.output)
        read = [self.node(node) for node in proto.node]  # twice: a list of all would keep each one's wrapper
        return ir.Graph(
            inputs,
            [self.typed(info, self.value(info.name)) for info in proto.output],
            nodes=read,
            initializers=initializers,
            doc_string=_given(proto, "doc_string"),
            name=_given(proto, "name"),
            metadata_props=serde.deserialize_metadata_props(proto.metadata_props),
        )

    def value(self, name: str) -> ir.Value:
        """The value of that name."""
        try:
            return self.values[name]
        except KeyError:
            raise _NotPlainError from None

    def typed(self, info: onnx.ValueInfoProto, value: ir.Value) -> ir.Value:
        """The value with the type that is declared for it."""
        data = info.type.SerializeToString()
        try:
            found = self.types[data]
        except KeyError:
            found = self.types[data] = _tensor_type(info.type)
        if found is None or info.metadata_props or info.doc_string:
            return serde.deserialize_value_info_proto(info, value)
        value.shape = found[0]
        value.type = ir.TensorType(found[1])  # one a value: setting a value's dtype changes it
        return value

    def initializer(self, tensor: ir.TensorProtocol) -> ir.Value:
        """The value of an initializer: an input's default, or one of its own."""
        name = tensor.name
        if not name:
            raise _NotPlainError
        found = self.values.get(name)
        if found is not None:
            found.const_value = tensor
            return found
        shape = tensor.shape
        assert isinstance(shape, ir.Shape)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
        info = self.infos.get(name)
        self.values[name] = value
        return value if info is None else self.typed(info, value)

    def declare(self, names: Iterable[str]) -> None:
        """Makes the values that nodes give."""
        values, infos, types = self.values, self.infos, self.types
        for name in names:
            if name in values:
                raise _NotPlainError
            if not name:
                continue
            info = infos.get(name)
            if info is None:
                values[name] = ir.Value(name=name)
                continue
            found = types.get(info.type.SerializeToString())
            if found is None or info.metadata_props or info.doc_string:
                values[name] = self.typed(info, ir.Value(name=name))
            else:
                values[name] = ir.Value(name=name, shape=found[0], type=ir.TensorType(found[1]))

    def node(self, proto: onnx.NodeProto) -> ir.Node:
        """A node with its attributes."""
        values, given, found = self.values, proto.output, proto.attribute
        try:
            inputs = [values[name] if name else None for name in proto.input]
        except KeyError:
            raise _NotPlainError from None
        name, domain, op_type = proto.name, proto.domain, proto.op_type
        self.nodes.append(name)
        self.words.add(op_type)
        self.words.add(domain)
        return ir.Node(
            domain,
            op_type,
            inputs,
            [self.attribute(proto, attribute) for attribute in found] if found else (),
            overload=proto.overload,
            outputs=[values[name] if name else ir.Value(name="") for name in given],
            name=name,
            doc_string=proto.doc_string or None,
            metadata_props=serde.deserialize_metadata_props(props) if (props := proto.metadata_props) else None,
        )

    def attribute(self, node: onnx.NodeProto, proto: onnx.AttributeProto) -> ir.Attr:
        """An attribute; small equal ones are one, and so is what is read of their tensors later."""
        if proto.ByteSize() > MAX_SHARED:
            self.look(node, proto)
            self.words.add(proto.name)
            return _attribute(proto)
        data = proto.SerializeToString()
        found = self.attributes.get(data)
        if found is None:
            self.look(node, proto)
            self.words.add(proto.name)
            found = self.attributes[data] = _attribute(proto)
        return found


def _tensor_type(proto: onnx.TypeProto) -> tuple[ir.Shape, ir.DataType] | None:
    """Shape and element type; None for what is more, or less, than a tensor of known rank."""
    tensor = proto.tensor_type
    if not (proto.HasField("tensor_type") and tensor.HasField("shape") and tensor.elem_type) or proto.denotation:
        return None
    return serde.deserialize_tensor_shape(tensor.shape), ir.DataType(tensor.elem_type)


def _tensor(proto: onnx.TensorProto) -> ir.TensorProtocol:
    return serde.deserialize_tensor(proto)  # pyright: ignore[reportUnknownMemberType]


def _attribute(proto: onnx.AttributeProto) -> ir.Attr:
    kind = _KINDS.get(proto.type)
    if kind in _GRAPHS:
        raise _NotPlainError
    if kind is None or kind not in _PLAIN or proto.ref_attr_name:
        return serde.deserialize_attribute(proto)
    doc = proto.doc_string or None
    if kind is ir.AttributeType.TENSOR:
        return ir.Attr(proto.name, kind, _tensor(proto.t), doc_string=doc)
    return ir.Attr(proto.name, kind, getattr(proto, _PLAIN[kind]), doc_string=doc)


_PLAIN = {
    ir.AttributeType.INT: "i",
    ir.AttributeType.FLOAT: "f",
    ir.AttributeType.INTS: "ints",
    ir.AttributeType.FLOATS: "floats",
    ir.AttributeType.TENSOR: "t",
}
