"""Chosen operators compute in half precision: their floats become halves, and casts stand where the two meet."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx_ir as ir

from .builder import Builder

_FLOAT = ir.DataType.FLOAT
Uses = Sequence[tuple[ir.Node, int]]


def make_half(
    model: ir.Model, nodes: Collection[ir.Node], types: Mapping[ir.Value, ir.DataType], dtype: ir.DataType, owner: str
) -> int:
    """Lets ``nodes`` of the main graph compute in ``dtype``; graph inputs and outputs keep their types.

    Weights are converted when they are written, one at a time; what only half operators read loses its float form.
    Returns how many casts were added.
    """
    graph, builder = model.graph, Builder(model.graph, owner)
    computed = [v for node in graph for v in node.outputs if types.get(v) is _FLOAT]
    halves = [value for value in computed if value.producer() in nodes]
    given = [value for value in graph.inputs if types.get(value) is _FLOAT and not value.is_initializer()]
    added = 0
    for value in [v for v in graph.initializers.values() if types.get(v) is _FLOAT]:
        _convert_constant(builder, value, nodes, dtype)
    builder.place_front()
    for value in (*given, *(value for value in computed if value.producer() not in nodes)):
        added += _lead(builder, value, _uses(value, nodes, inside=True), dtype, f"{value.name}/half")
    for value in halves:
        value.type = ir.TensorType(dtype)
        readers = _uses(value, nodes, inside=False)
        if value.is_graph_output():
            added += _leave(builder, value, readers)
        else:
            added += _lead(builder, value, readers, _FLOAT, f"{value.name}/float")
    return added


def _uses(value: ir.Value, nodes: Collection[ir.Node], *, inside: bool) -> Uses:
    return [(node, index) for node, index in value.uses() if (node in nodes) is inside]


def _lead(builder: Builder, value: ir.Value, readers: Uses, dtype: ir.DataType, name: str) -> int:
    """Everything of ``readers`` reads a cast of ``value``, which stands right behind it; how many casts that took."""
    if not readers:
        return 0
    cast = builder.op("Cast", [value], name, {"to": int(dtype)}, dtype=dtype)
    cast.shape = value.shape
    for node, index in readers:
        node.replace_input_with(index, cast)
    _place(builder, value.producer())
    return 1


def _leave(builder: Builder, value: ir.Value, readers: Uses) -> int:
    """The graph output keeps its name and type: it is cast from the half that the graph goes on with."""
    name = value.name or ""
    value.name = builder.fresh(f"{name}/half")
    result = builder.op("Cast", [value], f"{name}/cast", {"to": int(_FLOAT)}, dtype=_FLOAT)
    result.name, result.shape = name, value.shape
    for node, index in readers:
        node.replace_input_with(index, result)
    outputs = builder.graph.outputs
    outputs[:] = [result if output is value else output for output in outputs]
    _place(builder, value.producer())
    return 1


def _place(builder: Builder, producer: ir.Node | None) -> None:
    if producer is not None:
        builder.place_after(producer)
    else:
        builder.place_front()


def _convert_constant(builder: Builder, value: ir.Value, nodes: Collection[ir.Node], dtype: ir.DataType) -> None:
    tensor, readers = value.const_value, _uses(value, nodes, inside=True)
    if tensor is None or not readers:
        return
    half = builder.constant(converted(tensor, dtype), f"{value.name}/half")
    for node, index in readers:
        node.replace_input_with(index, half)
    if not value.uses() and not value.is_graph_output():
        name = value.name or ""
        del builder.graph.initializers[name]
        del builder.graph.initializers[half.name or ""]
        half.name = name
        builder.graph.register_initializer(half)


def converted(tensor: ir.TensorProtocol, dtype: ir.DataType) -> ir.TensorProtocol:
    """The tensor rounded to ``dtype``; computed each time that it is asked for, so that no copy of it stays."""

    def compute() -> ir.TensorProtocol:
        return ir.tensor(tensor.numpy().astype(dtype.numpy()), dtype)

    return ir.LazyTensor(compute, dtype=dtype, shape=ir.Shape(tensor.shape.numpy()), name=tensor.name, cache=False)
