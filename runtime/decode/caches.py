"""A cache is bound to a graph by its layout: who owns its memory, and what becomes of it after a run."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import UsageError
from ...ir.shapes.infer import propagate
from ...ir.states import Layout, Pairing, State, find_states
from ...ir.states.control_flow_outputs import inline_cache_functions
from ...ir.states.ports import KEY_VALUE_INPUTS
from ...ir.symbolic.dims import Dim
from ...ir.symbolic.symbols import dims_of


class CachePolicy(enum.Enum):
    """Who owns a cache's memory, and what becomes of it after a run."""

    SHARED = "shared"  # one buffer: the graph writes its new rows into what it reads
    SWAPPED = "swapped"  # two buffers; what was written becomes what is read
    GROWN = "grown"  # what a run gives is what the next one takes
    PADDED = "padded"  # a past of fixed length, right-aligned; the host cuts the present
    PLACED = "placed"  # only the new rows leave the graph; the host puts them at their positions
    CONSTANT = "constant"  # only read


_IN_PLACE = frozenset((CachePolicy.SHARED, CachePolicy.SWAPPED, CachePolicy.PLACED))


@dataclass(frozen=True)
class Sizes:
    """What symbols are worth: rows of the batch, rows of a cache that is written in place, and others by name.

    ``buffers``: whether a fused cache of open length is a buffer of ``ctx`` rows, or grows from run to run.
    """

    rows: int = 1
    ctx: int = 0
    named: Mapping[str, int] = field(default_factory=dict[str, int])
    buffers: bool = True


@dataclass(frozen=True)
class CacheBinding:
    """One state of one graph: the names it enters and leaves by, its element type and sizes, and how it is kept.

    ``sizes`` has a number for every dimension but a growing axis, which is None; ``batch_axis`` is that of the texts;
    ``delta``: the output holds the new rows alone.
    """

    input: str
    output: str | None
    policy: CachePolicy
    axis: int | None
    dtype: ir.DataType
    sizes: tuple[int | None, ...]
    batch_axis: int = 0
    delta: bool = False
    fused: bool = False
    rewinds: bool = True

    @property
    def in_place(self) -> bool:
        """Whether every token has a row of its own in a buffer of fixed length."""
        return self.policy in _IN_PLACE

    @property
    def written(self) -> str | None:
        """The output that a run changes; one that only hands a constant on is left alone."""
        return self.output if self.policy is not CachePolicy.CONSTANT else None

    def empty(self) -> np.ndarray:
        """What a first run starts from."""
        return np.zeros([size or 0 for size in self.sizes], self.dtype.numpy())


def bind_caches(model: ir.Model, sizes: Sizes, states: Sequence[State]) -> dict[str, CacheBinding]:
    """How each state of a graph is kept, by input. UsageError where a cache's length is needed and nobody told it."""
    found = states
    if any(state.function for state in states):  # one buffer or two tells the function's body
        copy = model.clone()
        inline_cache_functions(copy)
        found = find_states(copy)
    in_place = {state.name for state in found if state.one_buffer}
    kept = [s for s in states if s.input is not None and (s.pairing is Pairing.BOTH or s.layout is Layout.FIXED)]
    heads = [s for s in kept if s.inside is Layout.FUSED and s.input is not None and not _declares_head(s.input)]
    widths = _head_sizes(model, heads) if heads else {}
    return {s.name: _bind(model, s, sizes, s.name in in_place, widths.get(s.name)) for s in kept}


def _declares_head(value: ir.Value) -> bool:
    return isinstance((dims_of(value) or (None,))[-1], int)


def _bind(model: ir.Model, state: State, sizes: Sizes, in_place: bool, head: int | None) -> CacheBinding:
    assert state.input is not None and state.input.dtype is not None
    dims = dims_of(state.input)
    if dims is None:
        raise UsageError("the state's shape is unknown", where=f"input {state.name!r}", hint="Fill in its type.")
    policy = _POLICIES[state.inside](state, in_place)
    axis = state.axis if state.layout is not Layout.RECURRENT else None
    found: list[int | None] = [d if isinstance(d, int) else sizes.named.get(str(d), sizes.rows) for d in dims]
    if head is not None:
        found[-1] = head
    if axis is not None and policy is not CachePolicy.CONSTANT:
        policy, found[axis] = _length(state, policy, dims[axis], sizes)
    elif state.axis is not None and state.conv_rows is not None and not isinstance(dims[state.axis], int):
        found[state.axis] = state.conv_rows
    rewinds = not state.takes_padding and not state.is_ring
    return CacheBinding(
        state.name,
        state.output.name if state.output is not None else None,
        policy,
        axis,
        state.input.dtype,
        tuple(found),
        batch_axis(model, state),
        delta=state.layout is Layout.DELTA,
        fused=state.inside is Layout.FUSED,
        rewinds=rewinds and (axis is not None or policy is CachePolicy.CONSTANT),
    )


def _length(state: State, policy: CachePolicy, dim: Dim | None, sizes: Sizes) -> tuple[CachePolicy, int | None]:
    """The policy and the size of the growing axis: declared, told, or none because it grows."""
    fixed = dim if isinstance(dim, int) else None
    if policy is CachePolicy.SHARED and state.inside is Layout.FUSED and fixed is None and not sizes.buffers:
        policy = CachePolicy.GROWN
    if policy is CachePolicy.GROWN:
        if state.layout is Layout.WINDOW or state.is_ring:  # GroupQueryAttention (1.32) wants its window's rows
            return policy, fixed or (state.window if state.is_ring else None)
        return (CachePolicy.PADDED, fixed) if fixed else (CachePolicy.GROWN, None)  # 0 rows: a first run alone
    if fixed is None and not sizes.ctx:
        raise UsageError(
            "nothing tells how long this cache is",
            where=f"input {state.name!r}",
            found=str(dim),
            hint="Give the context, or clone the graph with a fixed one.",
        )
    return policy, fixed if fixed is not None else sizes.ctx


def batch_axis(model: ir.Model, state: State) -> int:
    """The axis with the symbol that tokens begin with, else the first one that does not grow."""
    integers = (v for v in model.graph.inputs if v.dtype is not None and v.dtype.is_integer() and v is not state.input)
    named = {str(dims[0]) for v in integers if len(dims := dims_of(v) or ()) >= 2 and not isinstance(dims[0], int)}
    dims = (dims_of(state.input) if state.input is not None else None) or ()
    told = [axis for axis, dim in enumerate(dims) if str(dim) in named]
    usual = [1, 0] if len(dims) == 5 else range(len(dims))
    return next(iter([*told, *(axis for axis in usual if axis != state.axis)]), 0)


def _head_sizes(model: ir.Model, states: Sequence[State]) -> dict[str, int]:
    """The width of a head where a fused state's type leaves it open: what enters the operator, over its heads."""
    facts = propagate(model)
    found: dict[str, int] = {}
    for state in states:
        node = state.update
        ports = KEY_VALUE_INPUTS.get((node.domain, node.op_type)) if node is not None else None
        if node is None or ports is None or state.input is None:
            continue
        key, heads = node.inputs[ports[0]], (dims_of(state.input) or (None, None))[1]
        queries = node.attributes.get("num_heads")
        if key is None and isinstance(heads, int) and queries is not None:  # queries, keys and values in one
            key, heads = node.inputs[0], queries.as_int() + 2 * heads
        shape = (facts.shape(key) or ()) if key is not None else ()
        width = shape[-1] if shape else None
        if isinstance(width, int) and isinstance(heads, int) and heads:
            found[state.name] = width // heads if len(shape) == 3 else width
    return found


_POLICIES: Mapping[Layout, Callable[[State, bool], CachePolicy]] = {
    **dict.fromkeys((Layout.APPEND, Layout.WINDOW, Layout.RECURRENT), lambda state, in_place: CachePolicy.GROWN),
    Layout.SCATTER: lambda state, in_place: (
        CachePolicy.PLACED if state.layout is Layout.DELTA else CachePolicy.SHARED if in_place else CachePolicy.SWAPPED
    ),
    Layout.FUSED: lambda state, in_place: CachePolicy.SHARED if state.shares_buffer else CachePolicy.GROWN,
    Layout.FIXED: lambda state, in_place: CachePolicy.CONSTANT,
}
"""The layout that a cache has inside the graph -> its policy, before its length is looked at."""
