"""A graph becomes an onnx-graphsurgeon Graph and comes back: weights stay references, what it drops is put back."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import onnx
import onnx_ir as ir

from ..core.scopes import Scope, nested

Named = TypeVar("Named", ir.Node, ir.Value)

_QUANTIZATION = "quant_parameter_tensor_names"  # where onnx_ir keeps a value's quantization annotation


def to_surgeon(model: ir.Model) -> Any:
    """A graphsurgeon Graph of ``model``; no weight is read until somebody asks a constant for its values.

    The Graph is a copy: changing it leaves ``model`` as it is.
    """
    surgeon: Any = importlib.import_module("onnx_graphsurgeon")
    graph = surgeon.import_onnx(ir.to_proto(model))
    tensors = {tensor.name: tensor for tensor in _initializers(model)}
    lazy = _lazy_values()
    for graph_or_body in (graph, *graph.subgraphs(recursive=True)):
        for constant in graph_or_body.tensors().values():
            tensor = tensors.get(constant.name)
            if isinstance(constant, surgeon.Constant) and isinstance(tensor, ir.ExternalTensor):
                constant.values = lazy(tensor)
    return graph


def from_surgeon(graph: Any, like: ir.Model) -> ir.Model:
    """A model of a graphsurgeon Graph that came from ``like``.

    Node and value metadata, quantization annotations, documentation, dimension denotations, model metadata, inputs with
    defaults, and references to weights are taken from what has the same name in ``like``. Raises what graphsurgeon
    raises where the Graph cannot be exported.
    """
    surgeon: Any = importlib.import_module("onnx_graphsurgeon")
    model = ir.from_proto(_with_model_fields(surgeon.export_onnx(graph), like))
    _restore_scopes(model.graph, like.graph)
    model.graph.metadata_props.update(like.graph.metadata_props)
    for key, function in model.functions.items():
        if key in like.functions:
            _restore_scopes(function, like.functions[key])
            function.metadata_props.update(like.functions[key].metadata_props)
    _restore_references(model, like)
    _restore_initializers(model.graph, like.graph)
    _restore_default_inputs(model.graph, like.graph)
    return model


def _with_model_fields(proto: onnx.ModelProto, like: ir.Model) -> onnx.ModelProto:
    proto.ir_version = max(proto.ir_version, like.ir_version)
    proto.domain = like.domain or ""
    proto.doc_string = like.doc_string or ""
    proto.producer_name = like.producer_name or ""
    proto.producer_version = like.producer_version or ""
    if like.model_version is not None:
        proto.model_version = like.model_version
    onnx.helper.set_model_props(proto, like.metadata_props)
    return proto


def _lazy_values() -> Callable[[ir.ExternalTensor], Any]:
    """graphsurgeon's lazy values, but read through onnx_ir, which knows the folder and guards it."""
    base: Any = importlib.import_module("onnx_graphsurgeon.ir.tensor").LazyValues

    def load(self: Any) -> Any:
        return self.source.numpy()

    def make(tensor: ir.ExternalTensor) -> Any:
        values = reading(ir.to_proto(tensor))
        values.source = tensor
        return values

    reading: Any = type("ReadingValues", (base,), {"load": load})
    return make


def _initializers(model: ir.Model) -> Iterator[Any]:
    for scope in nested(model.graph):
        if isinstance(scope, ir.Graph):
            yield from (value.const_value for value in scope.initializers.values() if value.const_value is not None)


def _restore_scopes(new: Scope, old: Scope) -> None:
    """Puts back what belongs to the nodes and values of a scope and the scopes inside it."""
    known_nodes = _by_name(node for scope in nested(old) for node in scope)
    known_values = _by_name(value for scope in nested(old) for value in _values(scope))
    for scope in nested(new):
        for node in scope:
            source = known_nodes.get(_key(node))
            if source is not None and source.op_identifier() == node.op_identifier():
                node.metadata_props.update(source.metadata_props)
                node.doc_string = node.doc_string or source.doc_string
        for value in _values(scope):
            if _key(value) in known_values:
                _restore_value(value, known_values[_key(value)])


def _restore_value(new: ir.Value, old: ir.Value) -> None:
    new.metadata_props.update(old.metadata_props)
    new.doc_string = new.doc_string or old.doc_string
    if _QUANTIZATION in old.meta:
        new.meta[_QUANTIZATION] = old.meta[_QUANTIZATION]
    if new.type is None and not isinstance(old.type, ir.TensorType):
        new.type = old.type  # sequences and optionals, which graphsurgeon does not know
    if new.shape is None or old.shape is None or len(new.shape) != len(old.shape):
        return
    for axis in range(len(new.shape)):
        new.shape.set_denotation(axis, old.shape.get_denotation(axis))


def _restore_references(model: ir.Model, like: ir.Model) -> None:
    """Gives references to weights their folder back: the very tensor of ``like`` where name and place are the same."""
    tensors = {tensor.name: tensor for tensor in _initializers(like)}
    for scope in nested(model.graph):
        if not isinstance(scope, ir.Graph):
            continue
        for value in scope.initializers.values():
            tensor, source = value.const_value, tensors.get(value.name)
            if isinstance(tensor, ir.ExternalTensor) and isinstance(source, ir.ExternalTensor):
                value.const_value = source


def _restore_initializers(new: ir.Graph, old: ir.Graph) -> None:
    """Moves weights that graphsurgeon copied into the bodies that use them back out, and puts all in the old order."""
    for body in new.subgraphs():
        for name, value in list(body.initializers.items()):
            if name in old.initializers and _same(value.const_value, old.initializers[name].const_value):
                _move_out(value, body, new)
    rank = {name: index for index, name in enumerate(old.initializers)}
    ordered = sorted(new.initializers.values(), key=lambda value: rank.get(value.name or "", len(rank)))
    new.initializers.clear()
    for value in ordered:
        new.initializers.add(value)


def _move_out(value: ir.Value, body: ir.Graph, new: ir.Graph) -> None:
    name = value.name or ""
    del body.initializers[name]
    if name in new.initializers:
        value.replace_all_uses_with(new.initializers[name], replace_graph_outputs=True)
    else:
        new.initializers.add(value)


def _same(tensor: Any, other: Any) -> bool:
    if tensor is other:
        return True
    if isinstance(tensor, ir.ExternalTensor) or isinstance(other, ir.ExternalTensor):
        return False
    return tensor.dtype == other.dtype and tensor.shape == other.shape and tensor.tobytes() == other.tobytes()


def _restore_default_inputs(new: ir.Graph, old: ir.Graph) -> None:
    """Makes initializers inputs again that were both, in the old order."""
    present = {value.name or "": value for value in new.inputs}
    ordered: list[ir.Value] = []
    for value in old.inputs:
        name = value.name or ""
        if name in present:
            ordered.append(present.pop(name))
        elif value.is_initializer() and name in new.initializers:
            ordered.append(new.initializers[name])
    ordered.extend(value for value in new.inputs if value.name in present)
    if len(ordered) > len(new.inputs):
        new.inputs.clear()
        new.inputs.extend(ordered)


def _values(scope: Scope) -> Iterator[ir.Value]:
    yield from scope.inputs
    if isinstance(scope, ir.Graph):
        yield from scope.initializers.values()
    for node in scope:
        yield from node.outputs


def _key(thing: ir.Node | ir.Value) -> str:
    """A node without a name is known by its first output."""
    if thing.name or isinstance(thing, ir.Value):
        return thing.name or ""
    return f"\0{thing.outputs[0].name}" if thing.outputs else ""


def _by_name(things: Iterable[Named]) -> dict[str, Named]:
    """What has a name of its own; a name that two share tells nothing."""
    found: dict[str, Named] = {}
    twice: set[str] = {""}
    for thing in things:
        key = _key(thing)
        if key in found and found[key] is not thing:
            twice.add(key)
        found[key] = thing
    return {key: thing for key, thing in found.items() if key not in twice}
