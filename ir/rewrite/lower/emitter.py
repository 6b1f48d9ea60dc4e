"""Emits the standard operators that stand in for a node: types follow the operands, equal constants are shared."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ...core.scopes import Scope
from ...shapes.dtypes import dtype_of
from ...shapes.infer import Facts
from ...symbolic.dims import Dim
from ..builder import INT64, Builder

FLOAT, INT32, BOOL = ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.BOOL
HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
FUSED = "com.microsoft"
BLOCKED = 21  # the opset since which DequantizeLinear takes blocks, and 4-bit integers are element types
SMALL = 1024  # bytes; larger constants are not compared with others
Operand = ir.Value | int | float | Sequence[int] | None
Array = np.ndarray[Any, Any]


class Layout(enum.Enum):
    """What becomes of a fused operator's cache."""

    AUTO = "auto"  # written in place where past and present have the same declared rows, else it grows
    APPEND = "append"
    SCATTER = "scatter"


class Unfit(Exception):
    """A node that its row cannot replace exactly; the text says why."""


class Emitter(Builder):
    """A builder that writes the nodes of one replacement after the other.

    Attributes:
        opset: The ai.onnx version that the nodes are written for.
        place: What the new names begin with: the replaced node's own.
        layout: What becomes of a fused operator's cache.
        blocks: Whether weights may stay integers in blocks, for the target takes them.
        facts: Gives the symbolic shapes of the graph's values, swept when first asked for.
        right_padded: The masks whose tokens a replacement counts, so that padding must stand behind them.
        whole_pasts: The outputs that hold a whole past where the operator gave its last rows.
        settled: Symbols that an operator's form makes numbers: the head size of a cache.
    """

    def __init__(
        self,
        scope: Scope,
        owner: str,
        opset: int,
        facts: Callable[[], Facts] | None = None,
        layout: Layout = Layout.AUTO,
    ) -> None:
        """For the main graph, or a function."""
        super().__init__(scope, owner)
        self.opset, self.facts, self.layout, self.place = opset, facts, layout, ""
        self.blocks = opset >= BLOCKED
        self.right_padded: dict[str, None] = {}
        self.whole_pasts: dict[str, None] = {}
        self.settled: dict[str, int] = {}

    def __call__(
        self, op_type: str, *operands: Operand, dtype: ir.DataType | None = None, **attributes: object
    ) -> ir.Value:
        """The output of one ai.onnx node.

        A list of integers becomes a 1-D int64 constant; a number a scalar of the first tensor's element type (of the
        second's in Where). The result has that type too, unless ``dtype`` says another.
        """
        typed = operands[1:] if op_type == "Where" else operands
        kind = next((self.dtype(value) for value in typed if isinstance(value, ir.Value)), INT64)
        inputs = [self._operand(operand, kind) for operand in operands]
        return self.op(op_type, inputs, f"{self.place}/{op_type}", attributes, dtype=dtype or kind)

    def split(self, value: ir.Value, sizes: Sequence[int], axis: int) -> list[ir.Value]:
        """``value`` cut along ``axis`` into parts of ``sizes``."""
        inputs = [value, self.ints(sizes, "sizes_" + "_".join(map(str, sizes)))]
        parts = self.ops("Split", inputs, f"{self.place}/Split", len(sizes), {"axis": axis})
        for part, size in zip(parts, sizes, strict=True):
            part.type, part.shape = ir.TensorType(self.dtype(value)), _cut(value, axis, size)
        return list(parts)

    def dtype(self, value: ir.Value) -> ir.DataType:
        """The element type; raises Unfit where nothing tells it."""
        found, node = dtype_of(value), value.producer()
        while found is None and node is not None and node.domain == FUSED and node.inputs[0] is not None:
            found, node = dtype_of(node.inputs[0]), node.inputs[0].producer()  # fused operators keep their input's type
        if found is None:
            raise Unfit(f"the element type of {value.name!r} is not known")
        return found

    def known(self, value: ir.Value) -> tuple[Dim, ...] | None:
        """The symbolic shape of a value of the graph as it was; None where nothing tells it."""
        return self.facts().shape(value) if self.facts is not None else None

    def width(self, value: ir.Value, axis: int, what: str) -> int:
        """A dimension that must be a number; raises Unfit where neither a type nor a rule tells it."""
        found = _declared(value, axis)
        if found is None and (shape := self.known(value)) is not None and -len(shape) <= axis < len(shape):
            item = shape[axis]
            found = item if isinstance(item, int) else None
        if found is None:
            raise Unfit(f"{what} is not known")
        return found

    def rank(self, value: ir.Value) -> int:
        """The number of axes; raises Unfit where neither a type nor a rule tells it."""
        shape = value.shape if value.shape is not None else self.known(value)
        if shape is None:
            raise Unfit(f"the rank of {value.name!r} is not known")
        return len(shape)

    def layout_of(self, node: ir.Node, past: ir.Value | None, present: int) -> Layout:
        """Whether the cache that enters as ``past`` grows, or is a buffer; its declared rows decide where asked to."""
        if past is None or self.layout is not Layout.AUTO:
            return Layout.APPEND if past is None else self.layout
        after = node.outputs[present] if present < len(node.outputs) else None
        rows = [str(value.shape[2]) for value in (past, after) if value is not None and value.shape is not None]
        return Layout.SCATTER if len(rows) == 2 and rows[0] == rows[1] != "None" else Layout.APPEND

    def settle(self, value: ir.Value | None, axis: int, size: int) -> None:
        """Notes that a dimension which a type only names is the number ``size``."""
        found = value.shape[axis] if value is not None and value.shape is not None else None
        if isinstance(found, ir.SymbolicDim) and found.value is not None and not found.value.isdigit():
            self.settled[found.value] = size

    def array(self, content: Array | float, dtype: ir.DataType) -> ir.Value:
        """A constant holding ``content``; small equal ones are one."""
        typed = np.asarray(content).astype(dtype.numpy())
        tensor = ir.Tensor(typed, dtype=dtype)
        if typed.nbytes > SMALL:
            return self.constant(tensor, f"{self.place}/constant")
        key = ("array", dtype, typed.shape, typed.tobytes())
        return self.share(key, lambda: self.constant(tensor, "constant"))

    def as_type(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """``value`` as ``dtype``; itself where it is that already."""
        return value if self.dtype(value) == dtype else self("Cast", value, to=int(dtype), dtype=dtype)

    def spread(self, value: ir.Value, *axes: int) -> ir.Value:
        """``value`` with new axes of one; axes are an input since opset 13."""
        return self("Unsqueeze", value, list(axes)) if self.opset >= 13 else self("Unsqueeze", value, axes=list(axes))

    def mean(self, value: ir.Value) -> ir.Value:
        """The mean over the last axis, kept."""
        return self.reduce("ReduceMean", value)

    def reduce(self, op_type: str, value: ir.Value) -> ir.Value:
        """A reduction over the last axis, kept; axes are an input since opset 18."""
        if self.opset >= 18:
            return self(op_type, value, [-1], keepdims=1)
        return self(op_type, value, axes=[-1], keepdims=1)

    def sizes(self, value: ir.Value, *axes: int) -> ir.Value:
        """Dimensions as a 1-D int64 value, read at run time."""
        return self.dims([(value, axis) for axis in axes], f"{self.place}/sizes")

    def size(self, value: ir.Value, axis: int) -> ir.Value:
        """One dimension as an int64 scalar."""
        return self.scalar((value, axis), f"{self.place}/size")

    def slice(self, value: ir.Value, start: int, end: int, axis: int) -> ir.Value:
        """Rows ``start … end - 1`` of ``axis``."""
        return self("Slice", value, [start], [end], [axis], [1])

    def range(self, start: ir.Value | int, limit: ir.Value) -> ir.Value:
        """``start … limit - 1``, 1-D int64."""
        return self("Range", self.ints(start, "zero") if isinstance(start, int) else start, limit, self.ints(1, "one"))

    def recorded(self) -> list[ir.Node]:
        """Takes off what was emitted since the last placement: a body's nodes, or what must not be placed at all."""
        return self._take(self.graph)

    def is_new(self, value: ir.Value) -> bool:
        """True for an output of a node that was emitted and not placed yet."""
        node = value.producer()
        return node is not None and node.graph is None and not value.is_graph_output()

    def inside(self, body: ir.Graph) -> Emitter:
        """An emitter for a body whose constants are nodes in it and whose names clash with none outside."""
        inner = Emitter(body, self.owner, self.opset)
        self.fresh("body")
        inner._names, inner._constant_nodes, inner.place = self._names, True, self.place
        return inner

    def _operand(self, operand: Operand, kind: ir.DataType) -> ir.Value | None:
        if operand is None or isinstance(operand, ir.Value):
            return operand
        if isinstance(operand, int | float):
            return self.array(operand, kind)
        return self.ints(list(operand), "numbers_" + "_".join(map(str, operand)))


def _cut(value: ir.Value, axis: int, size: int) -> ir.Shape | None:
    if value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    items = list(value.shape)
    items[axis] = size
    return ir.Shape(items)


def _declared(value: ir.Value, axis: int) -> int | None:
    """A dimension that the value's type states as a number (digits in a name count), None where it does not."""
    if value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    found = value.shape[axis]
    text = "" if isinstance(found, int) else found.value or ""
    return found if isinstance(found, int) else int(text) if text.isdigit() else None
