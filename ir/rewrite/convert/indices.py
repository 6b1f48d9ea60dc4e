"""Row numbers, padding and the index tensors of ScatterND say where a run's rows go in a cache."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..builder import Builder, Source

BOOL, INT32, INT64 = ir.DataType.BOOL, ir.DataType.INT32, ir.DataType.INT64


@dataclass(frozen=True)
class Block:
    """A cache as its update takes it: its dimensions, and the axes of its rows and of the batch."""

    dims: tuple[Source, ...]
    axis: int
    batch: int = 0

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.dims)

    def along(self, kept: tuple[int, ...]) -> tuple[int, ...]:
        """The axes that a tensor over the axes ``kept`` lacks."""
        return tuple(axis for axis in range(self.rank) if axis not in kept)


class Rows:
    """The rows that ``positions`` ``[B, S]`` name; -1 is padding. Everything is emitted at the head, once."""

    def __init__(self, positions: ir.Value, builder: Builder) -> None:
        self.builder = builder
        self.positions = builder.cast(positions, INT64, "positions")
        self.zero = builder.ints(0, "zero")
        self.padded = builder.op("Less", [self.positions, self.zero], "is_padding", dtype=BOOL)
        self.numbers = builder.op("Where", [self.padded, self.zero, self.positions], "rows")

    def first_token(self) -> tuple[ir.Value, ir.Value]:
        """For each batch row the token whose position is 0, and whether there is one: ``[B, 1]`` each."""
        op = self.builder.op
        at_zero = op("Equal", [self.positions, self.zero], "is_first", dtype=BOOL)
        token = op("ArgMax", [self.builder.cast(at_zero, INT32, "is_first/int")], "first", {"axis": 1, "keepdims": 1})
        there = op("GatherElements", [at_zero, token], "has_first", {"axis": 1}, dtype=BOOL)
        return token, there

    def spread(self, value: ir.Value, block: Block, name: str) -> ir.Value:
        """``[B, S]`` (or ``[B, 1]``) broadcastable to ``block``, its second axis on the rows' axis."""
        if block.axis < block.batch:
            dtype = value.dtype or INT64
            value = self.builder.op("Transpose", [value], f"{name}/turned", {"perm": [1, 0]}, dtype=dtype)
        return self.builder.unsqueeze(value, block.along((block.batch, block.axis)), name)

    def indices(self, block: Block, numbers: ir.Value, count: tuple[ir.Value, int], name: str) -> ir.Value:
        """``[d0 … S …, n]``: the place in the cache of each new element, on the leading axes with rows and batch."""
        dims = [count if axis == block.axis else dim for axis, dim in enumerate(block.dims)]
        lead = Block(tuple(dims[: max(block.axis, block.batch) + 1]), block.axis, block.batch)
        shape = self.builder.dims(lead.dims, f"{name}/shape")
        columns = [self._column(axis, lead, numbers, shape, name) for axis in range(lead.rank)]
        return self.builder.op("Concat", columns, name, {"axis": -1})

    def _column(self, axis: int, lead: Block, numbers: ir.Value, shape: ir.Value, name: str) -> ir.Value:
        builder = self.builder
        if axis == lead.axis:
            flat = self.spread(numbers, lead, f"{name}/row")
        else:
            flat = builder.unsqueeze(
                builder.count(lead.dims[axis], f"{name}/axis_{axis}"), lead.along((axis,)), f"{name}/axis_{axis}"
            )
        full = builder.op("Expand", [flat, shape], f"{name}/column_{axis}")
        return builder.op("Unsqueeze", [full, builder.ints([-1], "last_axis")], f"{name}/column_{axis}")
