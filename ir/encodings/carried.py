"""The encodings that a program carries, as a table: read, completed by what its graphs tell, put back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import onnx_ir as ir

from ..program import Program
from .base import Encoding, EncodingTable
from .native import from_entries, to_entries


def table_of(program: Program) -> EncodingTable:
    """The program's encodings; EncodingsInvalid, naming the tensor, where program.json was edited badly."""
    return from_entries(program.encodings, "the program's encodings")


def put_table(program: Program, table: EncodingTable) -> None:
    """Makes the table the program's encodings."""
    program.encodings = to_entries(table)


def tensors_of(models: Iterable[ir.Model]) -> dict[str, ir.Value]:
    """Every named value of the main graphs, inputs and weights included; the first of a name."""
    found: dict[str, ir.Value] = {}
    for model in models:
        computed = (value for node in model.graph for value in node.outputs)
        for value in (*model.graph.inputs, *model.graph.initializers.values(), *computed):
            if value.name:
                found.setdefault(value.name, value)
    return found


def resolve_axis(encoding: Encoding, value: ir.Value) -> Encoding | None:
    """A per-channel encoding whose file does not tell the axis, with the axis that the weight's use or shape tells.

    None where neither does: the shape has no such axis, or two of them.
    """
    if encoding.axis is not None or len(encoding.shape) != 1 or encoding.block is not None:
        return encoding
    tensor_shape = value.const_value.shape if value.const_value is not None else value.shape
    dims = [dim if isinstance(dim, int) else None for dim in tensor_shape or ()]
    fitting = [axis for axis, size in enumerate(dims) if size == encoding.shape[0]]
    by_use = _axes_of_use(value, len(dims)) & {*fitting}
    choice = by_use if len(by_use) == 1 else set(fitting)
    return replace(encoding, axis=choice.pop()) if len(choice) == 1 else None


def _axes_of_use(value: ir.Value, rank: int) -> set[int]:
    axes = (_channel_axis(node, index) for node, index in value.uses())
    return {axis % rank for axis in axes if axis is not None and rank}


def _channel_axis(node: ir.Node, index: int) -> int | None:
    """The axis of a weight along which its operator makes output channels."""
    if node.op_type == "Gemm" and index == 1:
        transposed = node.attributes.get("transB")
        return 0 if transposed is not None and transposed.as_int() else 1
    return _CHANNELS.get((node.op_type, index))


_CHANNELS: Mapping[tuple[str, int], int] = {
    ("Conv", 1): 0,
    ("ConvTranspose", 1): 1,
    ("Gather", 0): 0,
    ("MatMul", 1): -1,
}
