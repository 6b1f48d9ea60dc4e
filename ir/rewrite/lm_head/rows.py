"""Emits the last n valid rows: which row of each batch line is the last, and the gather of those up to it."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ...interface.roles import Role
from ...shapes.dtypes import dtype_of
from ...shapes.infer import Facts
from ...states import Layout, Pairing, State
from ...symbolic.dims import Dim, minimum, symbol
from ..builder import Builder, Source
from .find import Tokens

INT64_MAX = 2**63 - 1
BOOL, INT32, INT64 = ir.DataType.BOOL, ir.DataType.INT32, ir.DataType.INT64


class Valid(enum.Enum):
    """What tells the last valid row of a batch line."""

    MASK = "by attention mask"
    POSITIONS = "by positions"
    LARGEST = "by largest position"
    ALL = "all rows are valid"


@dataclass(eq=False)
class Validity:
    """How rows are known to be valid, and the graph input that tells it.

    Attributes:
        cache: The rows of a fused operator's cache: its mask may span the cache, and then says nothing of padding.
        last: An ArgMax of the graph's own that is used again.
    """

    how: Valid
    source: ir.Value | None = None
    cache: tuple[ir.Value, int] | None = None
    last: ir.Value | None = None


@dataclass(frozen=True)
class Count:
    """How many rows are kept: a number, or the length of an input."""

    number: int | None = None
    source: ir.Value | None = None
    symbol: str = ""

    @property
    def dim(self) -> int | str:
        """The rows' dimension in types."""
        return self.number if self.number is not None else self.symbol


def validity_of(
    model: ir.Model, tokens: Tokens, states: Sequence[State], roles: Mapping[str, Role], facts: Facts
) -> Validity:
    """The attention mask where its last columns are this run's tokens, else positions, else every row counts.

    A mask over the rows of a cache that is written in place tells nothing of the run's own rows: positions do.
    """
    paired = [state for state in states if state.pairing is Pairing.BOTH]
    written = any(state.in_place for state in paired)
    mask = None if written else _mask(model, states, roles, facts)
    if mask is not None:
        fused = [s for s in paired if s.layout is Layout.FUSED and s.axis is not None and s.input is not None]
        cache = (fused[0].input, fused[0].axis) if fused else None
        return Validity(Valid.MASK, mask, cache)  # pyright: ignore[reportArgumentType]
    for value in model.graph.inputs:
        shape = facts.shape(value)
        if roles.get(value.name or "") is not Role.POSITIONS or not shape or len(shape) not in (2, 3):
            continue
        if shape[-2:] == (tokens.batch, tokens.length):
            return Validity(Valid.POSITIONS, value)
    return Validity(Valid.ALL)


def _mask(model: ir.Model, states: Sequence[State], roles: Mapping[str, Role], facts: Facts) -> ir.Value | None:
    """The two-dimensional mask over past and new tokens; one over an encoder's rows is another thing."""
    foreign: set[Dim] = set()
    for state in states:
        shape = facts.shape(state.input) if state.input is not None and state.layout is Layout.FIXED else None
        foreign |= set(shape[1:-1]) if shape is not None else set()
    for value in model.graph.inputs:
        shape = facts.shape(value)
        if roles.get(value.name or "") is Role.FEATURES and shape is not None and len(shape) == 3:
            foreign.add(shape[1])
    for value in model.graph.inputs:
        shape = facts.shape(value)
        if roles.get(value.name or "") is not Role.ATTENTION_MASK or shape is None or len(shape) != 2:
            continue
        if isinstance(shape[1], int) or shape[1] not in foreign:
            return value
    return None


def text_of(dim: Dim) -> int | str:
    """A dimension as types hold it."""
    return dim if isinstance(dim, int) else str(dim)


@dataclass(eq=False)
class Selector:
    """Emits into ``builder`` what keeps the last ``count`` rows of values of one graph; the indices are shared."""

    builder: Builder
    tokens: Tokens
    validity: Validity
    count: Count
    _indices: ir.Value | None = None

    @property
    def dim(self) -> Dim:
        """How many rows there are at run time: n, or all of fewer tokens; one row needs one token."""
        number: Dim = self.count.number if self.count.number is not None else symbol(self.count.symbol)
        return number if number == 1 else minimum(number, self.tokens.length)

    @property
    def length(self) -> Source:
        """The number of tokens."""
        dim = self.tokens.length
        return dim if isinstance(dim, int) else (self.tokens.value, 1)

    def select(self, rows: ir.Value, width: int, name: str) -> ir.Value:
        """``[batch, tokens, width]`` to ``[batch, n, width]``; a copy of rows, so bit-equal."""
        dtype = dtype_of(rows)
        shape = [text_of(self.tokens.batch), text_of(self.dim), width]
        if self.validity.how is Valid.ALL:
            operands = [rows, self._start(), self.builder.ints([INT64_MAX], "end"), self.builder.ints([1], "1")]
            return self.builder.op("Slice", operands, name, None, shape, dtype)
        if self._indices is None:
            self._indices = self._rows_up_to(self._last())
        wide = self.builder.op(
            "Expand", [self._indices, self.builder.ints([1, 1, width], f"width_{width}")], f"{name}/indices"
        )
        return self.builder.op("GatherElements", [rows, wide], name, {"axis": 1}, shape, dtype)

    def _start(self) -> ir.Value:
        if self.count.number is not None:
            return self.builder.ints([-self.count.number], "start")
        return self.builder.op("Neg", [self._count()], "start", shape=(1,))

    def _count(self) -> ir.Value:
        assert self.count.source is not None, "a count is a number or given by an input"
        return self.builder.dims([(self.count.source, 0)], "count")

    def _rows_up_to(self, last: ir.Value) -> ir.Value:
        """``[batch, n, 1]``: the n rows that end with ``last``; from row 0 on where fewer are valid."""
        builder = self.builder
        if self.count.number == 1:
            return builder.unsqueeze(last, [2], "indices")
        if self.count.number is not None:
            first = builder.op("Sub", [last, builder.ints([self.count.number - 1], "n-1")], "first")
            offsets = self._offsets(self.count.number)
        else:
            count = builder.op("Min", [self._count(), builder.dims([self.length], "tokens")], "count", shape=(1,))
            past = builder.op("Add", [last, builder.ints([1], "1")], "end_row")
            first = builder.op("Sub", [past, count], "first")
            limit = builder.op("Squeeze", [count, builder.ints([0], "axis_0")], "count/scalar", shape=())
            offsets = builder.op("Range", [builder.ints(0, "zero"), limit, builder.ints(1, "one")], "offsets")
        lower = builder.op("Max", [first, builder.ints([0], "0")], "lower")
        return builder.unsqueeze(builder.op("Add", [lower, offsets], "rows"), [2], "indices")

    def _offsets(self, number: int) -> ir.Value:
        """0 … n-1, cut to the tokens there are."""
        offsets = self.builder.ints(list(range(number)), "offsets")
        if isinstance(self.length, int):
            return offsets
        operands = [
            offsets,
            self.builder.ints([0], "0"),
            self.builder.dims([self.length], "tokens"),
            self.builder.ints([0], "0"),
        ]
        return self.builder.op("Slice", operands, "offsets", shape=(text_of(self.dim),))

    def _last(self) -> ir.Value:
        """``[batch, 1]``: the last valid row of each batch line."""
        return _LAST[self.validity.how](self)

    def flagged(self, flags: ir.Value, name: str) -> ir.Value:
        """``[batch, 1]``: the last column that is not zero; the last of all where none is."""
        whole = self.builder.op("Cast", [flags], f"{name}/int", {"to": int(INT32)}, dtype=INT32)
        return self.builder.op("ArgMax", [whole], name, {"axis": 1, "keepdims": 1, "select_last_index": 1})


def _by_mask(make: Selector) -> ir.Value:
    builder, mask = make.builder, make.validity.source
    assert mask is not None, "a mask tells it"
    if isinstance(make.length, int):
        start = builder.ints([-make.length], "minus_tokens")
    else:
        start = builder.op("Neg", [builder.dims([make.length], "tokens")], "minus_tokens", shape=(1,))
    columns = [mask, start, builder.ints([INT64_MAX], "end"), builder.ints([1], "1")]
    last = make.flagged(builder.op("Slice", columns, "valid", dtype=mask.dtype or INT64), "last")
    return last if make.validity.cache is None else _unless_cache_wide(make, mask, last)


def _unless_cache_wide(make: Selector, mask: ir.Value, last: ir.Value) -> ir.Value:
    """A mask as long as a shared cache buffer has this run's tokens somewhere inside it, and all of them are valid."""
    builder, cache = make.builder, make.validity.cache
    assert cache is not None, "asked for with a cache only"
    tokens, columns = builder.dims([make.length], "tokens"), builder.dims([(mask, 1)], "columns")
    grown = builder.op("Add", [builder.dims([cache], "cache"), tokens], "grown", shape=(1,))
    first = builder.op("Equal", [columns, tokens], "is_first", shape=(1,), dtype=BOOL)
    appended = builder.op("Equal", [columns, grown], "is_appended", shape=(1,), dtype=BOOL)
    tells = builder.op("Or", [first, appended], "mask_tells", shape=(1,), dtype=BOOL)
    end = builder.op("Sub", [tokens, builder.ints([1], "1")], "last_row", shape=(1,))
    return builder.op("Where", [tells, last, end], "last_valid")


def _by_positions(make: Selector) -> ir.Value:
    builder, positions = make.builder, make.validity.source
    assert positions is not None, "positions tell it"
    if positions.shape is not None and len(positions.shape) == 3:
        dtype = positions.dtype or INT64
        positions = builder.op("Gather", [positions, builder.ints(0, "zero")], "positions", {"axis": 0}, dtype=dtype)
    whole = builder.cast(positions, INT64, "positions/int")
    return make.flagged(builder.op("GreaterOrEqual", [whole, builder.ints(0, "zero")], "valid", dtype=BOOL), "last")


def _by_argmax(make: Selector) -> ir.Value:
    last = make.validity.last
    assert last is not None, "an ArgMax of the graph tells it"
    return make.builder.op("Reshape", [last, make.builder.ints([-1, 1], "column")], "last")


_LAST = {Valid.MASK: _by_mask, Valid.POSITIONS: _by_positions, Valid.LARGEST: _by_argmax}
