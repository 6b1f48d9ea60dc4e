"""Copies a graph so that it computes in float32 wherever it has half precision: what a CPU can run, and repeat."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from ...ir.core.scopes import Scope, scopes
from ...ir.program.program import Program

HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
MAX_BYTES = 1 << 30  # of half-precision weights; more are not widened in memory
_STATES_TYPE = ("to", "dtype", "output_dtype", "stash_type", "softmax_precision", "qk_matmul_output_dtype")


def widened(model: ir.Model) -> ir.Model | None:
    """The graph with float32 for float16 and bfloat16 throughout; None where it has neither, or too much of them.

    Every rounding to half precision is gone, so it computes other numbers; two graphs that are the same computation
    are the same computation still, and no runtime puts conversions of its own where it lacks a kernel.
    """
    tensors = list(_tensors(model))
    if not any(value.dtype in HALF for value in _values(model)) and not any(t.dtype in HALF for t in tensors):
        return None
    if sum(tensor.nbytes for tensor in tensors if tensor.dtype in HALF) > MAX_BYTES:
        return None
    wide = model.clone()
    for value in _values(wide):
        if value.dtype in HALF:
            value.type = _float_like(value.type)
        if value.const_value is not None and value.const_value.dtype in HALF:
            value.const_value = _widen(value.const_value)
    for scope in scopes(wide):
        for node in scope:
            for value in node.outputs:  # some exporters declare wrong ones, and a runtime plans its memory by them
                value.shape = value.shape if value.is_graph_output() else None
            for name, attribute in list(node.attributes.items()):
                if (changed := _widen_attribute(attribute)) is not None:
                    node.attributes[name] = changed
    return wide


def widened_pair(original: ir.Model, result: ir.Model) -> tuple[ir.Model, ir.Model] | None:
    """Both graphs, widened where they have half precision; None where neither can be."""
    pair = widened(original), widened(result)
    return (pair[0] or original, pair[1] or result) if any(pair) else None


def widened_program(program: Program) -> Program | None:
    """The program with every graph that has half precision widened; None where none has, or one is too large."""
    graphs = {name: (model, widened(model)) for name, model in program.graphs.items()}
    if all(wide is None for _, wide in graphs.values()):
        return None
    other = copy.copy(program)
    other.graphs = {name: wide or model for name, (model, wide) in graphs.items()}
    return other


def widened_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of half precision as float32, others as they are."""
    return {
        name: array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array
        for name, array in arrays.items()
    }


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for scope in scopes(model):
        yield from scope.inputs
        if isinstance(scope, ir.Graph):
            yield from scope.initializers.values()
        for node in scope:
            yield from node.outputs


def _tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for scope in scopes(model):
        yield from _held(scope)
        for node in scope:
            yield from (a.as_tensor() for a in node.attributes.values() if a.type is ir.AttributeType.TENSOR)


def _held(scope: Scope) -> Iterator[ir.TensorProtocol]:
    values = scope.initializers.values() if isinstance(scope, ir.Graph) else ()
    yield from (value.const_value for value in values if value.const_value is not None)


def _float_like(kind: ir.TypeProtocol | None) -> ir.TypeProtocol:
    wide = type(kind) if isinstance(kind, ir.TensorType | ir.SparseTensorType) else ir.TensorType
    return wide(ir.DataType.FLOAT)


def _widen(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)


def _widen_attribute(attribute: ir.Attr) -> ir.Attr | None:
    """The attribute for float32; None where it says nothing of half precision."""
    if attribute.is_ref():
        return None
    if attribute.type is ir.AttributeType.TENSOR and attribute.as_tensor().dtype in HALF:
        return ir.AttrTensor(attribute.name, _widen(attribute.as_tensor()))
    if attribute.type is ir.AttributeType.INT and attribute.name in _STATES_TYPE and attribute.as_int() in HALF:
        return ir.AttrInt64(attribute.name, int(ir.DataType.FLOAT))
    return None
