"""A copy of a graph in float32 whose every half-precision result is rounded, as a device with such units rounds it.

onnxruntime's CPU provider (1.32) computes chains of halves in float32 and drops casts between them, also those that the
graph holds: an overflow does not show. Here each result is rounded by arithmetic that no runtime removes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from ...ir.core.scopes import all_nodes, scopes
from ...ir.rewrite.builder import Builder
from ...ir.shapes.float_values import element_types

_FLOAT = ir.DataType.FLOAT
_DIGITS = {ir.DataType.FLOAT16: 11, ir.DataType.BFLOAT16: 8}
_OVER = {ir.DataType.FLOAT16: 65520.0, ir.DataType.BFLOAT16: 3.3961775e38}  # what rounds to infinity, from here on
_NORMAL = 2.0**-14  # below it, the steps of float16 are 2**-24; bfloat16 has float32's exponents
_MAGIC = 0.75  # float32's steps beside it are 2**-24
_FAR, _SHIFT = 2.0**64, 2.0**-40  # numbers that the splitting of a float32 would carry beyond its range
OWNER = "rounded"


def rounded_copy(model: ir.Model) -> ir.Model:
    """The graph itself where it computes nothing in half precision; inputs and outputs keep their types."""
    if not any(dtype in _DIGITS for dtype in element_types(model).values()):
        return model
    wide = model.clone()
    types = element_types(wide)
    builder = Builder(wide.graph, OWNER)
    computed = [
        (value, types[value])
        for node in wide.graph
        for value in node.outputs
        if value.name and types.get(value) in _DIGITS
    ]  # an output without a name is not given
    given = [value for value in wide.graph.inputs if value.dtype in _DIGITS]
    for node in all_nodes(wide):
        _widen_attributes(node)
    for value in _values(wide):
        if value not in given:
            _widen(value)
    for value in given:
        _cast_input(builder, value)
    for value, dtype in computed:
        _round(builder, value, dtype)
    return wide


def _cast_input(builder: Builder, value: ir.Value) -> None:
    readers = list(value.uses())
    cast = builder.op("Cast", [value], f"{value.name}/wide", {"to": int(_FLOAT)}, dtype=_FLOAT)
    for node, index in readers:
        node.replace_input_with(index, cast)
    builder.place_front()


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for scope in scopes(model):
        yield from scope.inputs
        if isinstance(scope, ir.Graph):
            yield from scope.initializers.values()
        for node in scope:
            yield from node.outputs


def _widen(value: ir.Value) -> None:
    tensor = value.const_value
    if tensor is not None and tensor.dtype in _DIGITS:
        value.const_value = ir.tensor(tensor.numpy().astype(np.float32), name=value.name)
    if value.dtype in _DIGITS:
        value.type = ir.TensorType(_FLOAT)


def _widen_attributes(node: ir.Node) -> None:
    """What an operator says of the type that it gives, and constants."""
    for name in ("to", "dtype", "output_dtype"):
        told = node.attributes.get(name)
        if (
            told is not None
            and not told.is_ref()
            and told.type is ir.AttributeType.INT
            and told.as_int() in map(int, _DIGITS)
        ):
            node.attributes[name] = ir.AttrInt64(name, int(_FLOAT))
    held = node.attributes.get("value")
    if held is not None and held.type is ir.AttributeType.TENSOR and held.as_tensor().dtype in _DIGITS:
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(held.as_tensor().numpy().astype(np.float32)))


def _round(builder: Builder, value: ir.Value, dtype: ir.DataType) -> None:
    """Everything that reads ``value`` reads it rounded; a graph output keeps its name."""
    readers, leaves, name = list(value.uses()), value.is_graph_output(), value.name or ""
    producer = value.producer()
    if leaves:
        value.name = builder.fresh(f"{name}/exact")
    result = _rounded(builder, value, dtype, name)
    result.shape = value.shape
    for node, index in readers:
        node.replace_input_with(index, result)
    if leaves:
        result = builder.op("Cast", [result], f"{name}/half", {"to": int(dtype)}, dtype=dtype)
        result.shape = value.shape
        result.name = name
        outputs = builder.graph.outputs
        outputs[:] = [result if output is value else output for output in outputs]
    assert producer is not None, "only computed values are rounded"
    builder.place_after(producer)


def _rounded(builder: Builder, value: ir.Value, dtype: ir.DataType, name: str) -> ir.Value:
    """Veltkamp's splitting keeps the leading digits, half to even; small numbers are rounded beside a larger one."""

    def op(kind: str, *operands: ir.Value, to: ir.DataType = _FLOAT) -> ir.Value:
        return builder.op(kind, operands, f"{name}/{kind.lower()}", dtype=to)

    def number(n: float) -> ir.Value:
        key = ("float", n)
        return builder.share(key, lambda: builder.constant(ir.tensor(np.float32(n)), f"{n:g}"))

    def split(x: ir.Value) -> ir.Value:
        big = op("Mul", x, number(2.0 ** (24 - _DIGITS[dtype]) + 1))
        return op("Sub", big, op("Sub", big, x))

    size = op("Abs", value)
    if dtype is ir.DataType.FLOAT16:
        small = op("Sub", op("Add", size, number(_MAGIC)), number(_MAGIC))
        kept = op("Where", op("Less", size, number(_NORMAL), to=ir.DataType.BOOL), small, split(size))
    else:
        far = op("Greater", size, number(_FAR), to=ir.DataType.BOOL)
        scaled = op("Div", split(op("Mul", size, number(_SHIFT))), number(_SHIFT))
        kept = op("Where", far, scaled, split(size))
    over = op("GreaterOrEqual", size, number(_OVER[dtype]), to=ir.DataType.BOOL)
    kept = op("Where", over, number(float("inf")), kept)
    kept = op("Where", op("Equal", size, size, to=ir.DataType.BOOL), kept, size)  # NaN stays NaN
    negative = op("Less", value, number(0.0), to=ir.DataType.BOOL)
    return op("Where", negative, op("Mul", kept, number(-1.0)), kept)
