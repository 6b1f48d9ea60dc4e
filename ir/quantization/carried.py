"""The encodings that a program carries are read as a table, completed by what its graphs tell, and put back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import onnx_ir as ir

from ..core.encoding import Encoding, EncodingTable
from ..core.operators import of
from ..program.program import Program
from .layout_ops import axes_after, is_one_to_one

MAX_DEPTH = 8  # operators between a weight and what multiplies by it
_Number = TypeVar("_Number", int, float)


def table_of(program: Program) -> EncodingTable:
    """The program's encodings as a table of its own."""
    return EncodingTable.of(program.encodings)


def put_table(program: Program, table: EncodingTable) -> None:
    """Makes the table the program's encodings."""
    program.encodings = table.tensors()


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
    """An encoding whose file does not tell its axis, with the axis that the weight's use or shape tells.

    None where neither does: the shape has no such axis, or two of them.
    """
    if encoding.axis is not None or len(encoding.shape) != 1:
        return encoding
    tensor_shape = value.const_value.shape if value.const_value is not None else value.shape
    dims = [dim if isinstance(dim, int) else None for dim in tensor_shape or ()]
    by_use = axes_of_use(value, len(dims))
    if encoding.block is not None:
        return _in_blocks(encoding, dims, by_use)
    fitting = {axis for axis, size in enumerate(dims) if size == encoding.shape[0]}
    choice = by_use & fitting if len(by_use & fitting) == 1 else fitting
    return replace(encoding, axis=choice.pop()) if len(choice) == 1 else None


def _in_blocks(encoding: Encoding, dims: Sequence[int | None], by_use: set[int]) -> Encoding | None:
    """Scales that a file lists channel by channel, a channel's blocks together, put as the weight itself lies.

    The input channels, which are cut into blocks, are the other axis of the matrix; None where it is none.
    """
    assert encoding.block is not None
    count = len(encoding.levels or encoding.scale)
    whole = [size for size in dims if size is not None]
    if len(whole) != 2 or len(dims) != 2:
        return None
    fitting = {
        channel: -(-whole[1 - channel] // encoding.block)
        for channel in (0, 1)
        if whole[channel] * -(-whole[1 - channel] // encoding.block) == count
    }
    usable = by_use & fitting.keys() or (fitting.keys() if not by_use else set[int]())
    if len(usable) != 1:
        return None
    (channel,) = usable
    layout = _Layout(channel, (whole[channel], fitting[channel]))
    if not encoding.levels:
        return layout.put(encoding)
    wide = len(encoding.scale) == whole[channel]  # one scale a channel
    return layout.put_levels(encoding) if wide else None


@dataclass(frozen=True)
class _Layout:
    """Where the channels of a matrix are; ``counts`` are channels, and blocks a channel."""

    channel: int
    counts: tuple[int, int]

    def put(self, encoding: Encoding) -> Encoding:
        """The encoding of blocks with float scales."""
        scale, zero = (self._turned(numbers) for numbers in (encoding.scale, encoding.zero_point))
        return replace(encoding, scale=scale, zero_point=zero, shape=self._shape(*self.counts), axis=1 - self.channel)

    def put_levels(self, encoding: Encoding) -> Encoding:
        """The encoding of blocks with integer scales of their own."""
        shape = self._shape(self.counts[0], 1)
        levels, wanted = self._turned(encoding.levels), self._shape(*self.counts)
        return replace(encoding, levels=levels, levels_shape=wanted, shape=shape, axis=1 - self.channel)

    def _shape(self, channels: int, blocks: int) -> tuple[int, int]:
        return (channels, blocks) if self.channel == 0 else (blocks, channels)

    def _turned(self, numbers: tuple[_Number, ...]) -> tuple[_Number, ...]:
        channels, blocks = self.counts
        if self.channel == 0:
            return numbers
        return tuple(numbers[channel * blocks + block] for block in range(blocks) for channel in range(channels))


def axes_of_use(value: ir.Value, rank: int, depth: int = 0) -> set[int]:
    """The axes of a weight that make output channels, known from what multiplies by it, be it turned before or not."""
    found: set[int] = set()
    for node, index in value.uses():
        own = _channel_axis(node, index)
        if own is not None and rank:
            found.add(own % rank)
        elif own is None and index == 0 and is_one_to_one(node) and depth < MAX_DEPTH:
            shape = tuple(dim if isinstance(dim, int) else None for dim in value.shape or ()) or None
            axes = axes_after(node, shape, None) or ()
            behind = axes_of_use(node.outputs[0], len(axes), depth + 1)
            found |= {axes[axis] or 0 for axis in behind if axes[axis] is not None}
    return found


def _channel_axis(node: ir.Node, index: int) -> int | None:
    """The axis of a weight along which its operator makes output channels."""
    if node.op_type == "Gemm" and index == 1:
        transposed = node.attributes.get("transB")
        return 0 if transposed is not None and transposed.as_int() else 1
    row = of(node)
    if row.lookup is not None and index == row.lookup.table:
        return 0
    return row.product.channel if row.product is not None and index == row.product.weight else None
