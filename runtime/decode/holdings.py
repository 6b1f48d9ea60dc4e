"""How a session keeps a state between runs: in one buffer, in two that trade places, or as what the last run gave."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import UsageError
from ...ir.states import TRAITS, Layout, Pairing, State, find_states
from ...ir.states.control_flow_outputs import inline_cache_functions
from ...ir.symbolic.symbols import dims_of


class Hold(enum.Enum):
    """Who owns a state's memory, and what becomes of it after a run."""

    SHARED = "shared"  # one buffer: the graph writes its new rows into what it reads
    SWAPPED = "swapped"  # two buffers; what was written becomes what is read
    GROWN = "grown"  # what a run gives is what the next one takes
    PADDED = "padded"  # a past of fixed length, right-aligned; the host cuts the present
    ROWS = "rows"  # only the new rows leave the graph; the host puts them in place
    CONSTANT = "constant"  # only read


@dataclass(frozen=True)
class Holding:
    """One state of one graph: the names it enters and leaves by, its element type and sizes, and how it is kept.

    ``sizes`` has a number for every dimension but a growing axis, which is None; ``batch_axis`` is that of the texts.
    """

    input: str
    output: str | None
    hold: Hold
    axis: int | None
    dtype: ir.DataType
    sizes: tuple[int | None, ...]
    layout: Layout
    batch_axis: int = 0

    @property
    def rewinds(self) -> bool:
        """Whether rows that the last run added can be taken back."""
        return TRAITS[self.layout].rewinds and not (self.axis is None and self.hold is not Hold.CONSTANT)

    def empty(self) -> np.ndarray:
        """What a first run starts from."""
        return np.zeros([size or 0 for size in self.sizes], self.dtype.numpy())


@dataclass(frozen=True)
class Sizes:
    """What symbols are worth: rows of the batch, rows of a cache that is written in place, and others by name."""

    rows: int = 1
    ctx: int = 0
    named: Mapping[str, int] = field(default_factory=dict[str, int])


def holdings_of(model: ir.Model, sizes: Sizes, states: list[State] | None = None) -> list[Holding]:
    """How each state of a graph is kept. Raises UsageError where a cache's length is needed and nobody told it."""
    copy = model.clone()
    inline_cache_functions(copy)
    in_place = {state.name for state in find_states(copy) if state.one_buffer}
    kept = [state for state in states or find_states(model) if _kept(state)]
    return [_holding(state, sizes, state.name in in_place, _batch_axis(model, state)) for state in kept]


def _batch_axis(model: ir.Model, state: State) -> int:
    """The axis with the symbol that tokens begin with, else the first one that does not grow."""
    integers = (v for v in model.graph.inputs if v.dtype is not None and v.dtype.is_integer() and v is not state.input)
    named = {str(dims[0]) for v in integers if len(dims := dims_of(v) or ()) >= 2 and not isinstance(dims[0], int)}
    dims = (dims_of(state.input) if state.input is not None else None) or ()
    told = [axis for axis, dim in enumerate(dims) if str(dim) in named]
    usual = [1, 0] if len(dims) == 5 else range(len(dims))
    return next(iter([*told, *(axis for axis in usual if axis != state.axis)]), 0)


def _kept(state: State) -> bool:
    """An input that the session must feed; one that a host feeds alone (no output) only where it is a cache."""
    return state.input is not None and (state.pairing is Pairing.BOTH or state.layout is Layout.FIXED)


def _holding(state: State, sizes: Sizes, in_place: bool, batch_axis: int) -> Holding:
    assert state.input is not None and state.input.dtype is not None
    dims = dims_of(state.input)
    if dims is None:
        raise UsageError("the state's shape is unknown", where=f"input {state.name!r}", hint="Fill in its type.")
    hold = _HOLDS[state.layout](state, in_place)
    axis = state.axis if state.layout is not Layout.RECURRENT else None
    known = [dim if isinstance(dim, int) else sizes.named.get(str(dim), sizes.rows) for dim in dims]
    if len(dims) > 1 and not isinstance(dims[-1], int) and str(dims[-1]) not in sizes.named:
        known[-1] = _head_size(state) or known[-1]
    found: list[int | None] = list(known)
    if axis is not None and hold is not Hold.CONSTANT:
        hold, found[axis] = _length(state, hold, axis, sizes)
    elif state.layout is Layout.RECURRENT and state.conv_rows is not None and state.axis is not None:
        declared = dims[state.axis]
        found[state.axis] = declared if isinstance(declared, int) else state.conv_rows
    output = state.output.name if state.output is not None else None
    return Holding(state.name, output, hold, axis, state.input.dtype, tuple(found), state.layout, batch_axis)


def _length(state: State, hold: Hold, axis: int, sizes: Sizes) -> tuple[Hold, int | None]:
    """The hold and the size of the growing axis: declared, told, or none because it grows."""
    dim = (dims_of(state.input) or ())[axis] if state.input is not None else None
    fixed = dim if isinstance(dim, int) else None
    if hold is Hold.GROWN:
        return (Hold.GROWN, None) if fixed is None or state.layout is Layout.WINDOW else (Hold.PADDED, fixed)
    if fixed is None and not sizes.ctx:
        raise UsageError(
            "nothing tells how long this cache is",
            where=f"input {state.name!r}",
            found=str(dim),
            hint="Give the context, or clone the graph with a fixed one.",
        )
    return hold, fixed if fixed is not None else sizes.ctx


def _head_size(state: State) -> int | None:
    """The width of one head of a fused attention whose cache does not declare it: what its result is projected from."""
    heads = state.update.attributes.get("num_heads") if state.update is not None else None
    if state.update is None or heads is None:
        return None
    for use in state.update.outputs[0].uses():
        weight = use.node.inputs[1] if use.idx == 0 and len(use.node.inputs) > 1 else None
        rows = weight.shape[0] if weight is not None and weight.shape is not None else None
        if use.node.op_type in ("MatMul", "MatMulNBits") and isinstance(rows, int):
            width = use.node.attributes.get("K")
            return (width.as_int() if width is not None else rows) // heads.as_int()
    return None


def _scatter(state: State, in_place: bool) -> Hold:
    return Hold.SHARED if in_place else Hold.SWAPPED


def _fused(state: State, in_place: bool) -> Hold:
    return Hold.SHARED if state.shares_buffer else Hold.GROWN


_HOLDS: Mapping[Layout, Callable[[State, bool], Hold]] = {
    Layout.APPEND: lambda state, in_place: Hold.GROWN,
    Layout.SCATTER: _scatter,
    Layout.FUSED: _fused,
    Layout.DELTA: lambda state, in_place: Hold.ROWS,
    Layout.WINDOW: lambda state, in_place: Hold.GROWN,
    Layout.RECURRENT: lambda state, in_place: Hold.GROWN,
    Layout.FIXED: lambda state, in_place: Hold.CONSTANT,
}
