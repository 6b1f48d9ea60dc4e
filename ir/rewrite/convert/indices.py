"""Where a run's rows go in a cache: row numbers, padding, and the index tensors of ScatterND."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..builder import Source
from ..builder_insertion import Site

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

    def __init__(self, positions: ir.Value, site: Site) -> None:
        self.site = site
        self.positions = site.cast(positions, INT64, "positions")
        self.zero = site.ints(0, "zero")
        self.padded = site.op("Less", [self.positions, self.zero], "is_padding", dtype=BOOL)
        self.numbers = site.op("Where", [self.padded, self.zero, self.positions], "rows")

    def first_token(self) -> tuple[ir.Value, ir.Value]:
        """For each batch row the token whose position is 0, and whether there is one: ``[B, 1]`` each."""
        op = self.site.op
        at_zero = op("Equal", [self.positions, self.zero], "is_first", dtype=BOOL)
        token = op("ArgMax", [self.site.cast(at_zero, INT32, "is_first/int")], "first", {"axis": 1, "keepdims": 1})
        there = op("GatherElements", [at_zero, token], "has_first", {"axis": 1}, dtype=BOOL)
        return token, there

    def spread(self, value: ir.Value, block: Block, name: str) -> ir.Value:
        """``[B, S]`` (or ``[B, 1]``) broadcastable to ``block``, its second axis on the rows' axis."""
        if block.axis < block.batch:
            dtype = value.dtype or INT64
            value = self.site.op("Transpose", [value], f"{name}/turned", {"perm": [1, 0]}, dtype=dtype)
        return self.site.unsqueeze(value, block.along((block.batch, block.axis)), name)

    def indices(self, block: Block, numbers: ir.Value, count: tuple[ir.Value, int], name: str) -> ir.Value:
        """``[d0 … S …, n]``: the place in the cache of each new element, on the leading axes with rows and batch."""
        dims = [count if axis == block.axis else dim for axis, dim in enumerate(block.dims)]
        lead = Block(tuple(dims[: max(block.axis, block.batch) + 1]), block.axis, block.batch)
        shape = self.site.dims(lead.dims, f"{name}/shape")
        columns = [self._column(axis, lead, numbers, shape, name) for axis in range(lead.rank)]
        return self.site.op("Concat", columns, name, {"axis": -1})

    def _column(self, axis: int, lead: Block, numbers: ir.Value, shape: ir.Value, name: str) -> ir.Value:
        site = self.site
        if axis == lead.axis:
            flat = self.spread(numbers, lead, f"{name}/row")
        else:
            flat = site.unsqueeze(
                site.count(lead.dims[axis], f"{name}/axis_{axis}"), lead.along((axis,)), f"{name}/axis_{axis}"
            )
        full = site.op("Expand", [flat, shape], f"{name}/column_{axis}")
        return site.op("Unsqueeze", [full, site.ints([-1], "last_axis")], f"{name}/column_{axis}")
