"""How new rows are written into a cache of fixed size, in each family of operators; padded rows write nothing.

A padded row (-1) never changes what a live row holds, and no index is ever out of range: it writes row 0 with the value
that row 0 has after the run (the new one where a token has position 0). TensorScatter writes a window of consecutive
rows: there each row that no token has is written with its own value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import onnx_ir as ir

from ...core.errors import PassRefused
from ...shapes.dtypes import dtype_of
from ..builder import Builder
from .functions import CLOUD, add_cache_functions
from .indices import BOOL, Block, Rows
from .options import Ops

TENSOR_SCATTER_OPSET = 24  # onnx 1.19; mode "linear" refuses rows behind the end, "circular" is a ring
Shared = dict[str, ir.Value]


@dataclass(eq=False)
class Rewriter:
    """Writes rows of one graph at ``positions`` ``[B, S]``: shared tensors at the head, then one update a state."""

    model: ir.Model
    positions: ir.Value
    builder: Builder
    ops: Ops
    shared: dict[Block, Shared] = field(default_factory=dict[Block, Shared])
    rows: Rows = field(init=False)

    def __post_init__(self) -> None:
        self.rows = Rows(self.positions, self.builder)

    def share(self, block: Block) -> None:
        """Emits what all states of one shape have in common."""
        if block not in self.shared:
            self.shared[block] = _PREPARE[self.ops](self, block)

    def write(self, cache: ir.Value, new: ir.Value, block: Block, name: str) -> tuple[ir.Value, ir.Value]:
        """The written cache, and the same as attention reads it."""
        return _WRITE[self.ops](self, cache, new, block, name)

    def op(
        self,
        op_type: str,
        operands: list[ir.Value],
        name: str,
        like: ir.Value,
        axis: int | None = None,
        *,
        domain: str = "",
    ) -> ir.Value:
        """One node whose result has ``like``'s element type."""
        attributes: dict[str, object] | None = None if axis is None else {"axis": axis}
        dtype = dtype_of(like) or ir.DataType.FLOAT  # new rows often come without a declared type: give it the cache
        return self.builder.op(op_type, operands, name, attributes, dtype=dtype, domain=domain)


def refuse_unfit(ops: Ops, block: Block, where: str) -> None:
    """Raises PassRefused where the operators asked for cannot write a cache of this shape."""
    if ops is Ops.TENSOR_SCATTER and block.batch != 0:
        raise PassRefused(
            "TensorScatter wants the batch first", where=where, found=f"axis {block.batch}", hint="Use ops=ai.onnx."
        )
    if ops is Ops.CTX and (block.rank, block.axis, block.batch) != (4, 2, 0):
        raise PassRefused(
            "CtxScatter writes caches [batch, heads, rows, size] only",
            where=where,
            found=f"rank {block.rank} with rows on axis {block.axis}, the batch on axis {block.batch}",
            hint="Use ops=ai.onnx.",
        )


def _prepare_kept(w: Rewriter, block: Block) -> Shared:
    """What keeps padded rows from writing: which are padding, and the token that writes row 0."""
    rows, builder = w.rows, w.builder
    token, there = rows.first_token()
    first = tuple(1 if axis == block.axis else dim for axis, dim in enumerate(block.dims))
    shape = builder.dims(first, "first/shape")
    return {
        "padded": rows.spread(rows.padded, block, "is_padding/spread"),
        "there": rows.spread(there, block, "has_first/spread"),
        "token": builder.op("Expand", [rows.spread(token, block, "first/spread"), shape], "first/token"),
    }


def _prepare_onnx(w: Rewriter, block: Block) -> Shared:
    shared = _prepare_kept(w, block)
    shared["indices"] = w.rows.indices(block, w.rows.numbers, (w.positions, 1), "indices")
    return shared


def _prepare_ctx(w: Rewriter, block: Block) -> Shared:
    shared, length = _prepare_kept(w, block), block.dims[block.axis]
    if not any(name == "CtxScatter" and domain == CLOUD for domain, name, _ in w.model.functions):
        add_cache_functions(w.model, w.builder.owner)
    shared["length"] = w.builder.scalar(length, "ctx")
    shared["numbers"] = w.builder.unsqueeze(w.builder.count(length, "ctx/rows"), (0, 1), "ctx/rows/spread")
    return shared


def _prepare_window(w: Rewriter, block: Block) -> Shared:
    """The window of S rows that holds all positions, moved back where it would leave the cache."""
    builder, op = w.builder, w.builder.op
    count = (w.positions, 1)
    offsets, zero = builder.count(count, "offsets"), w.rows.zero
    start = op("Max", [op("Gather", [w.rows.positions, zero], "window/first", {"axis": 1}), zero], "window/wanted")
    last = op("Sub", [builder.scalar(block.dims[block.axis], "ctx"), builder.scalar(count, "tokens")], "window/last")
    begin = op("Min", [start, last], "window/start")
    shift = builder.unsqueeze(op("Sub", [start, begin], "window/shift"), (1,), "window/shift/spread")
    token = op("Sub", [offsets, shift], "window/token")
    clipped = op("Max", [token, zero], "window/token/clipped")
    there = op("GreaterOrEqual", [token, zero], "window/inside", dtype=BOOL)
    position = op("GatherElements", [w.rows.positions, clipped], "window/position", {"axis": 1})
    valid = op("GreaterOrEqual", [position, zero], "window/valid", dtype=BOOL)
    numbers = op("Add", [builder.unsqueeze(begin, (1,), "window/start/spread"), offsets], "window/rows")
    return {
        "start": begin,
        "live": w.rows.spread(op("And", [there, valid], "window/live", dtype=BOOL), block, "window/live/spread"),
        "old": w.rows.indices(block, numbers, count, "window/old"),
        "new": w.rows.indices(block, clipped, count, "window/new"),
    }


def _kept(w: Rewriter, cache: ir.Value, new: ir.Value, block: Block, name: str) -> ir.Value:
    """The new rows, padded ones replaced by what row 0 holds after the run."""
    shared, builder = w.shared[block], w.builder
    bounds = [builder.ints([number], str(number)) for number in (0, 1)]
    old = w.op("Slice", [cache, *bounds, builder.ints([block.axis], str(block.axis))], f"{name}/first/old", cache)
    fresh = w.op("GatherElements", [new, shared["token"]], f"{name}/first/new", cache, block.axis)
    first = w.op("Where", [shared["there"], fresh, old], f"{name}/first", cache)
    return w.op("Where", [shared["padded"], first, new], f"{name}/rows", cache)


def _write_onnx(w: Rewriter, cache: ir.Value, new: ir.Value, block: Block, name: str) -> tuple[ir.Value, ir.Value]:
    rows = _kept(w, cache, new, block, name)
    written = w.op("ScatterND", [cache, w.shared[block]["indices"], rows], f"{name}/written", cache)
    return written, written


def _write_ctx(w: Rewriter, cache: ir.Value, new: ir.Value, block: Block, name: str) -> tuple[ir.Value, ir.Value]:
    rows, shared = _kept(w, cache, new, block, name), w.shared[block]
    written = w.op("CtxScatter", [cache, w.rows.numbers, rows], f"{name}/written", cache, domain=CLOUD)
    read = w.op("CtxGather", [written, shared["numbers"], shared["length"]], f"{name}/read", cache, domain=CLOUD)
    return written, read


def _write_window(w: Rewriter, cache: ir.Value, new: ir.Value, block: Block, name: str) -> tuple[ir.Value, ir.Value]:
    shared = w.shared[block]
    old = w.op("GatherND", [cache, shared["old"]], f"{name}/window/old", cache)
    fresh = w.op("GatherND", [new, shared["new"]], f"{name}/window/new", cache)
    rows = w.op("Where", [shared["live"], fresh, old], f"{name}/window", cache)
    written = w.op("TensorScatter", [cache, rows, shared["start"]], f"{name}/written", cache, block.axis)
    return written, written


_PREPARE: dict[Ops, Callable[[Rewriter, Block], Shared]] = {
    Ops.ONNX: _prepare_onnx,
    Ops.CTX: _prepare_ctx,
    Ops.TENSOR_SCATTER: _prepare_window,
}
_WRITE: dict[Ops, Callable[[Rewriter, ir.Value, ir.Value, Block, str], tuple[ir.Value, ir.Value]]] = {
    Ops.ONNX: _write_onnx,
    Ops.CTX: _write_ctx,
    Ops.TENSOR_SCATTER: _write_window,
}
