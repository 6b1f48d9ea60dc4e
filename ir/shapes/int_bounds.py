"""Bounds of integer values, operator by operator: what an index, a position or a length can be at most and at least."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from ..core.constants import constant_of
from ..symbolic.symbols import dims_of

MOST_ELEMENTS = 1 << 12  # of a constant whose numbers are looked at: a larger one is a table
Bounds = tuple[int, int]
"""The smallest and the largest number; both included."""


@dataclass(frozen=True)
class Operand:
    """What a rule sees of a node: the bounds of its operands, and the largest size of any axis."""

    node: ir.Node
    bounds: Callable[[ir.Value], Bounds | None]
    largest: int

    def of(self, index: int) -> Bounds:
        """The bounds of one operand; raises LookupError where nothing bounds it."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        found = self.bounds(value) if value is not None else None
        if found is None:
            raise LookupError(index)
        return found

    def hull(self, *indices: int) -> Bounds:
        """The bounds of several operands together; of all where none is named."""
        parts = [self.of(index) for index in indices or range(len(self.node.inputs))]
        return min(low for low, _ in parts), max(high for _, high in parts)

    def size(self, axis: int | None) -> int:
        """How long an axis of the first operand is at most; all axes together where none is named."""
        first = self.node.inputs[0]
        dims = (dims_of(first) if first is not None else None) or ()
        chosen = dims if axis is None else dims[axis : axis + 1 or None]
        total = 1
        for dim in chosen or (self.largest,):
            total *= dim if isinstance(dim, int) else self.largest
        return total


def bounds_of(model: ir.Model, given: Mapping[ir.Value, Bounds], largest: int) -> dict[ir.Value, Bounds]:
    """The bounds of every integer value of the main graph that something bounds.

    ``given`` bounds the graph's inputs; no axis is longer than ``largest``.
    """
    found = dict(given)

    def bounds(value: ir.Value) -> Bounds | None:
        return found[value] if value in found else _of_constant(value)

    for node in model.graph:
        rule = RULES.get(node.op_type) if not node.domain else None
        if rule is None:
            continue
        try:
            known = rule(Operand(node, bounds, largest))
        except LookupError:
            continue
        found.update(dict.fromkeys(node.outputs, known))
    return found


def _of_constant(value: ir.Value) -> Bounds | None:
    shape = value.const_value.shape.numpy() if value.const_value is not None else ()
    total = 1
    for size in shape:
        total *= int(size)
    tensor = constant_of(value) if total <= MOST_ELEMENTS else None
    if tensor is None or not tensor.size or not (tensor.dtype.is_integer() or tensor.dtype is ir.DataType.BOOL):
        return None
    numbers = tensor.numpy()
    return int(numbers.min()), int(numbers.max())


def _constant(o: Operand) -> Bounds:
    found = _of_constant(o.node.outputs[0])
    if found is None:
        raise LookupError
    return found


def _filled(o: Operand) -> Bounds:
    value = o.node.attributes.get("value")
    tensor = value.as_tensor() if value is not None else None
    if tensor is None or not tensor.dtype.is_integer():  # float32 zeros where no value is given
        raise LookupError
    number = int(tensor.numpy().reshape(-1)[0])
    return number, number


def _product(a: Bounds, b: Bounds) -> Bounds:
    ends = [x * y for x in a for y in b]
    return min(ends), max(ends)


def _add(o: Operand) -> Bounds:
    (a, b), (c, d) = o.of(0), o.of(1)
    return a + c, b + d


def _sub(o: Operand) -> Bounds:
    (a, b), (c, d) = o.of(0), o.of(1)
    return a - d, b - c


def _div(o: Operand) -> Bounds:
    (a, b), (c, d) = o.of(0), o.of(1)
    if c <= 0 <= d:
        raise LookupError
    widest = max(abs(a), abs(b)) // min(abs(c), abs(d))
    return (0 if a >= 0 and c > 0 else -widest), widest


def _mod(o: Operand) -> Bounds:
    low, high = o.of(1)
    return min(low + 1, 0) if low < 0 else 0, max(high - 1, 0)


def _abs(o: Operand) -> Bounds:
    low, high = o.of(0)
    return 0, max(abs(low), abs(high))


def _neg(o: Operand) -> Bounds:
    low, high = o.of(0)
    return -high, -low


def _max(o: Operand) -> Bounds:
    parts = [o.of(index) for index in range(len(o.node.inputs))]
    return max(low for low, _ in parts), max(high for _, high in parts)


def _min(o: Operand) -> Bounds:
    parts = [o.of(index) for index in range(len(o.node.inputs))]
    return min(low for low, _ in parts), min(high for _, high in parts)


def _sum(o: Operand) -> Bounds:
    return _product(o.of(0), (0, o.size(None)))


def _index(o: Operand) -> Bounds:
    axis = o.node.attributes.get("axis")
    return 0, max(o.size(axis.as_int() if axis is not None else (-1 if o.node.op_type == "TopK" else 0)) - 1, 0)


def _cast(o: Operand) -> Bounds:
    source = o.node.inputs[0]
    return (0, 1) if source is not None and source.dtype is ir.DataType.BOOL else o.of(0)


RULES: Mapping[str, Callable[[Operand], Bounds]] = {
    **dict.fromkeys(
        "Identity Unsqueeze Squeeze Reshape Transpose Expand Flatten Slice Gather GatherElements GatherND Tile Split "
        "ReduceMax ReduceMin".split(),
        lambda o: o.of(0),
    ),
    "Abs": _abs,
    "Add": _add,
    "ArgMax": _index,
    "ArgMin": _index,
    "Cast": _cast,
    "Clip": lambda o: o.of(0),
    "Concat": lambda o: o.hull(),
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "CumSum": _sum,
    "Div": _div,
    "Max": _max,
    "Min": _min,
    "Mod": _mod,
    "Mul": lambda o: _product(o.of(0), o.of(1)),
    "Neg": _neg,
    "Range": lambda o: o.hull(0, 1),
    "ReduceSum": _sum,
    "ScatterElements": lambda o: o.hull(0, 2),
    "ScatterND": lambda o: o.hull(0, 2),
    "Shape": lambda o: (0, o.largest),
    "Size": lambda o: (0, o.size(None)),
    "Sub": _sub,
    "Where": lambda o: o.hull(1, 2),
}
"""Operator -> the bounds of its integer outputs; raises LookupError where an operand has none."""
