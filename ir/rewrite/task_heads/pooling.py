"""Emits the pooling of hidden rows: one vector a batch line, of its valid rows alone."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ..builder import Builder
from ..lm_head import Valid, Validity
from ..lm_head.rows import INT64_MAX, text_of
from .hidden import Hidden

BOOL, FLOAT, INT32 = ir.DataType.BOOL, ir.DataType.FLOAT, ir.DataType.INT32
REDUCE_AXES_INPUT = 18  # from this opset on ReduceMax takes its axes as an input (ONNX, ReduceMax-18)
LEAST_NORM = 1e-12  # as torch.nn.functional.normalize, which sentence-transformers calls
STEPS = 127.0


class PoolKind(enum.Enum):
    """How valid rows become one vector; AUTO is decided by files beside the model."""

    AUTO = "auto"
    LAST = "last"
    MEAN = "mean"
    WEIGHTED_MEAN = "weighted-mean"
    CLS = "cls"
    MAX = "max"


@dataclass(eq=False)
class Pooler:
    """Emits into ``builder``; sums are made in float32, whatever the graph computes in."""

    builder: Builder
    hidden: Hidden
    validity: Validity
    opset: int
    _flags: list[ir.Value] = field(default_factory=list[ir.Value])

    @property
    def batch(self) -> int | str:
        """The batch's dimension in types."""
        return text_of(self.hidden.tokens.batch)

    @property
    def length(self) -> int | str:
        """The tokens' dimension in types."""
        return text_of(self.hidden.tokens.length)

    def pool(self, kind: PoolKind) -> ir.Value:
        """``[batch, width]``: copies of rows in their own type, sums in float32; zeros for a line without rows."""
        if self.validity.how is Valid.ALL:  # of cls alone: the first row needs no mask
            operands = [self.hidden.rows, self.builder.ints(0, "first")]
            shape, dtype = (self.batch, self.hidden.width), self.hidden.dtype
            return self.builder.op("Gather", operands, "pooled", {"axis": 1}, shape, dtype)
        vectors = _KINDS[kind](self)
        some = self.builder.op("ReduceMax", *self._max_operands(self.whole, 1, keep=True), (self.batch, 1), INT32)
        kept = self.builder.op("Cast", [some], "has_rows", {"to": int(BOOL)}, (self.batch, 1), BOOL)
        zero = self.number(0.0, vectors.dtype or FLOAT, "zero")
        return self.builder.op("Where", [kept, vectors, zero], "vectors", like=vectors)

    @property
    def valid(self) -> ir.Value:
        """BOOL ``[batch, tokens]``."""
        if not self._flags:
            self._flags.append(_FLAGS[self.validity.how](self))
        return self._flags[0]

    @property
    def whole(self) -> ir.Value:
        """The same as int32 ones and zeros: ArgMax, ReduceMax and CumSum take no bool."""
        return self.builder.share(
            ("valid", "int32"),
            lambda: self.builder.op(
                "Cast", [self.valid], "valid/int", {"to": int(INT32)}, (self.batch, self.length), INT32
            ),
        )

    def number(self, value: float, dtype: ir.DataType, name: str) -> ir.Value:
        """A scalar constant."""
        make = lambda: self.builder.constant(ir.tensor(np.asarray(value, dtype.numpy()), dtype), name)  # noqa: E731
        return self.builder.share(("number", value, dtype), make)

    def row_at(self, index: ir.Value, name: str) -> ir.Value:
        """``[batch, width]``: the row that ``index`` ``[batch, 1]`` tells; a copy, so bit-equal."""
        builder, rows, width, dtype = self.builder, self.hidden.rows, self.hidden.width, self.hidden.dtype
        wide = builder.op(
            "Expand",
            [builder.unsqueeze(index, [2], f"{name}/column"), builder.ints([1, 1, width], "width")],
            f"{name}/indices",
            shape=(self.batch, 1, width),
        )
        row = builder.op("GatherElements", [rows, wide], f"{name}/row", {"axis": 1}, (self.batch, 1, width), dtype)
        return builder.op("Squeeze", [row, builder.axes([1])], name, shape=(self.batch, width), dtype=dtype)

    def float_rows(self) -> ir.Value:
        """The rows in float32."""
        rows, shape = self.hidden.rows, (self.batch, self.length, self.hidden.width)
        if self.hidden.dtype is FLOAT:
            return rows
        return self.builder.op("Cast", [rows], "rows/float", {"to": int(FLOAT)}, shape, FLOAT)

    def masked(self, rows: ir.Value, dtype: ir.DataType, fill: float) -> ir.Value:
        """The rows with ``fill`` where padding is: chosen and not multiplied, since padding may hold NaN."""
        flags = self.builder.unsqueeze(self.valid, [2], "valid/column")
        return self.builder.op(
            "Where", [flags, rows, self.number(fill, rows.dtype or FLOAT, "fill")], "rows", like=rows
        )

    def sum_rows(self, rows: ir.Value, weights: ir.Value) -> ir.Value:
        """Over the tokens, each row by its weight.

        A product, for onnxruntime 1.32 sums a ReduceSum of one line in another order than one of several.
        """
        builder, shape = self.builder, (self.batch, self.hidden.width)
        line = builder.unsqueeze(weights, [1], "weights/line")
        wide = builder.op("MatMul", [line, rows], "sum/line", None, (self.batch, 1, self.hidden.width), FLOAT)
        return builder.op("Squeeze", [wide, builder.axes([1])], "sum", None, shape, FLOAT)

    def reduce_max(self, rows: ir.Value, name: str) -> ir.Value:
        """Over the tokens."""
        operands = self._max_operands(rows, 1, keep=False, name=name)
        return self.builder.op(*("ReduceMax", *operands), (self.batch, self.hidden.width), rows.dtype)

    def _max_operands(
        self, value: ir.Value, axis: int, *, keep: bool, name: str = "some"
    ) -> tuple[list[ir.Value | None], str, dict[str, object]]:
        """Operands, name and attributes of a ReduceMax of the graph's opset."""
        attributes: dict[str, object] = {"keepdims": int(keep)}
        if self.opset < REDUCE_AXES_INPUT:
            return [value], name, {**attributes, "axes": [axis]}
        return [value, self.builder.axes([axis])], name, attributes

    def to_float(self, value: ir.Value, name: str) -> ir.Value:
        """In float32; itself where it is."""
        cast = self.builder.cast(value, FLOAT, name)
        cast.shape = value.shape if cast is not value else cast.shape
        return cast

    def first_dims(self, vectors: ir.Value, dims: int) -> ir.Value:
        """The first ``dims`` of each vector."""
        ints = self.builder.ints
        operands = [vectors, ints([0], "0"), ints([dims], "dims"), ints([1], "1")]
        return self.builder.op("Slice", operands, "first_dims", None, (self.batch, dims), vectors.dtype)

    def normalized(self, vectors: ir.Value, width: int) -> ir.Value:
        """With length one, in float32; a zero vector stays."""
        builder, vectors = self.builder, self.to_float(vectors, "vectors/float")
        shape, one = (self.batch, width), (self.batch, 1)
        squares = builder.op("Mul", [vectors, vectors], "squares", None, shape, FLOAT)
        total = builder.op("ReduceSum", [squares, builder.axes([1])], "square_sum", {"keepdims": 1}, one, FLOAT)
        norm = builder.op("Sqrt", [total], "norm", None, one, FLOAT)
        least = builder.op("Max", [norm, self.number(LEAST_NORM, FLOAT, "least_norm")], "norm/least", None, one, FLOAT)
        return builder.op("Div", [vectors, least], "normalized", None, shape, FLOAT)

    def as_int8(self, vectors: ir.Value, width: int) -> tuple[ir.Value, ir.Value]:
        """Steps of each vector's largest value over 127, and how large a step is."""
        builder, vectors = self.builder, self.to_float(vectors, "vectors/float")
        shape, one = (self.batch, width), (self.batch, 1)
        sizes = builder.op("Abs", [vectors], "sizes", None, shape, FLOAT)
        largest = builder.op("ReduceMax", *self._max_operands(sizes, 1, keep=True, name="largest"), one, FLOAT)
        least = builder.op("Max", [largest, self.number(LEAST_NORM, FLOAT, "least")], "largest/least", None, one, FLOAT)
        step = builder.op("Div", [least, self.number(STEPS, FLOAT, "steps")], "step", None, one, FLOAT)
        scaled = builder.op("Div", [vectors, step], "scaled", None, shape, FLOAT)
        whole = builder.op("Round", [scaled], "rounded", None, shape, FLOAT)
        return builder.op("Cast", [whole], "int8", {"to": int(ir.DataType.INT8)}, shape, ir.DataType.INT8), step

    def as_bits(self, vectors: ir.Value, width: int) -> ir.Value:
        """Eight signs a byte, the first in the highest bit, as numpy.packbits has it."""
        builder, size = self.builder, width // 8
        zero = self.number(0.0, vectors.dtype or FLOAT, "zero")
        signs = builder.op("Greater", [vectors, zero], "signs", None, (self.batch, width), BOOL)
        whole = builder.op("Cast", [signs], "signs/int", {"to": int(INT32)}, (self.batch, width), INT32)
        split = [whole, builder.ints([0, size, 8], "bytes_shape")]
        split_shape = (self.batch, size, 8)
        bytes_ = builder.op("Reshape", split, "bytes", None, split_shape, INT32)
        powers = builder.constant(ir.tensor(2 ** np.arange(7, -1, -1, dtype=np.int32)), "powers")
        worth = builder.op("Mul", [bytes_, powers], "bits", None, split_shape, INT32)
        packed = [worth, builder.axes([2])]
        total = builder.op("ReduceSum", packed, "packed", {"keepdims": 0}, (self.batch, size), INT32)
        uint8 = ir.DataType.UINT8
        return builder.op("Cast", [total], "binary", {"to": int(uint8)}, (self.batch, size), uint8)


def _by_mask(pooler: Pooler) -> ir.Value:
    builder, mask, length = pooler.builder, pooler.validity.source, pooler.hidden.tokens.length
    assert mask is not None, "a mask tells it"
    if not (mask.shape is not None and len(mask.shape) == 2 and str(mask.shape[1]) == str(length)):
        count = length if isinstance(length, int) else (pooler.hidden.tokens.value, 1)
        if isinstance(count, int):
            start = builder.ints([-count], "minus_tokens")
        else:
            start = builder.op("Neg", [builder.dims([count], "tokens")], "minus_tokens", shape=(1,))
        operands = [mask, start, builder.ints([INT64_MAX], "end"), builder.ints([1], "1")]
        mask = builder.op("Slice", operands, "mask", None, (pooler.batch, pooler.length), mask.dtype)
    return builder.op("Cast", [mask], "valid", {"to": int(BOOL)}, (pooler.batch, pooler.length), BOOL)


def _by_positions(pooler: Pooler) -> ir.Value:
    builder, positions = pooler.builder, pooler.validity.source
    assert positions is not None, "positions tell it"
    if positions.shape is not None and len(positions.shape) == 3:
        dtype = positions.dtype or ir.DataType.INT64
        positions = builder.op("Gather", [positions, builder.ints(0, "first")], "positions", {"axis": 0}, dtype=dtype)
    whole = builder.cast(positions, ir.DataType.INT64, "positions/int")
    shape = (pooler.batch, pooler.length)
    return builder.op("GreaterOrEqual", [whole, builder.ints(0, "first")], "valid", None, shape, BOOL)


_FLAGS: Mapping[Valid, Callable[[Pooler], ir.Value]] = {Valid.MASK: _by_mask, Valid.POSITIONS: _by_positions}


def _last(pooler: Pooler) -> ir.Value:
    attributes = {"axis": 1, "keepdims": 1, "select_last_index": 1}
    index = pooler.builder.op("ArgMax", [pooler.whole], "last", attributes, (pooler.batch, 1))
    return pooler.row_at(index, "pooled")


def _cls(pooler: Pooler) -> ir.Value:
    index = pooler.builder.op("ArgMax", [pooler.whole], "first", {"axis": 1, "keepdims": 1}, (pooler.batch, 1))
    return pooler.row_at(index, "pooled")


def _mean(pooler: Pooler) -> ir.Value:
    return _weighed(pooler, pooler.to_float(pooler.whole, "weights"))


def _weighted(pooler: Pooler) -> ir.Value:
    """The n-th valid row counts n times; as sentence-transformers has it where padding stands behind."""
    builder, shape = pooler.builder, (pooler.batch, pooler.length)
    places = builder.op("CumSum", [pooler.whole, builder.ints(1, "axis")], "places", None, shape, INT32)
    counted = builder.op("Mul", [places, pooler.whole], "places/valid", None, shape, INT32)
    return _weighed(pooler, pooler.to_float(counted, "weights"))


def _weighed(pooler: Pooler, weights: ir.Value) -> ir.Value:
    """The weighted sum over its weights; over one where there are none."""
    builder, one = pooler.builder, (pooler.batch, 1)
    rows = pooler.masked(pooler.float_rows(), FLOAT, 0.0)
    total = pooler.sum_rows(rows, weights)
    weight = builder.op("ReduceSum", [weights, builder.axes([1])], "weight", {"keepdims": 1}, one, FLOAT)
    least = builder.op("Max", [weight, pooler.number(1.0, FLOAT, "one")], "weight/least", None, one, FLOAT)
    return builder.op("Div", [total, least], "pooled", like=total)


def _max(pooler: Pooler) -> ir.Value:
    dtype = pooler.hidden.dtype
    return pooler.reduce_max(pooler.masked(pooler.hidden.rows, dtype, float(dtype.min)), "pooled")


_KINDS: Mapping[PoolKind, Callable[[Pooler], ir.Value]] = {
    PoolKind.LAST: _last,
    PoolKind.CLS: _cls,
    PoolKind.MEAN: _mean,
    PoolKind.WEIGHTED_MEAN: _weighted,
    PoolKind.MAX: _max,
}
