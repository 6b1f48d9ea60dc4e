"""A node shows which operand is the cache, which the new rows and which their positions: scatters, local functions.

A local function scatters when its body writes one of its inputs into another; it reads when its body gathers rows of
one by another. That is found in the body, so any domain and any name will do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from ..core.constants import constant_of
from ..core.operators import Addressing, of
from ..core.operators.walks import SAME_PLACE, VIEWS
from .trace import backward, constant_ints

MAX_COLUMNS = 8
MAX_INDICES = 1 << 16  # of a constant that is looked into
_INDEX_TYPES = (ir.DataType.INT64, ir.DataType.INT32)


@dataclass(frozen=True)
class Access:
    """One scatter or gather: the values it works on, in the scope where they were found.

    Attributes:
        data: The cache.
        updates: The new rows (scatters), None for a gather.
        positions: The value that indexes the cache's ``axis``; None for a scatter whose rows begin at 0.
        axis: The axis of ``data`` that ``positions`` indexes; may be negative.
        selector: The value that indexes the leading (batch) axis, or None.
        core: The node that does it.
    """

    data: ir.Value
    updates: ir.Value | None
    positions: ir.Value | None
    axis: int
    selector: ir.Value | None
    core: ir.Node


class Signatures:
    """Recognizes scatters and gathers in one graph, looking into each local function once."""

    def __init__(self, model: ir.Model) -> None:
        self._functions = model.functions
        self._known: dict[tuple[str, ir.OperatorIdentifier], _Formal | None] = {}

    def scatter(self, node: ir.Node) -> Access | None:
        """How ``node`` writes rows into a cache, in terms of its own operands; None where it does not."""
        return self._access(node, "scatter")

    def gather(self, node: ir.Node) -> Access | None:
        """How ``node`` reads rows out of a cache by index, in terms of its own operands; None where it does not."""
        return self._access(node, "gather")

    def reads(self, node: ir.Node) -> bool:
        """True for a call of a local function that reads rows out of its first operand."""
        return bool(node.domain) and self.gather(node) is not None

    def _access(self, node: ir.Node, what: str) -> Access | None:
        identifier = node.op_identifier()
        if identifier not in self._functions:
            return _core_access(node, what)
        key = (what, identifier)
        if key not in self._known:
            self._known[key] = None  # a function that calls itself is not read any deeper
            self._known[key] = self._formal(self._functions[identifier], what)
        formal = self._known[key]
        return formal.bind(node) if formal is not None else None

    def _formal(self, function: ir.Function, what: str) -> _Formal | None:
        """The access that the function's first output is, with its operands as indices of the function's inputs."""
        if not function.outputs:
            return None
        end, _ = backward(function.outputs[0])
        node = end.producer()
        access = self._access(node, what) if node is not None else None
        if access is None:
            return None
        inputs = {id(value): index for index, value in enumerate(function.inputs)}
        data, updates, positions, selector = (
            _input_index(value, inputs) for value in (access.data, access.updates, access.positions, access.selector)
        )
        if data is None or positions is None or (access.updates is not None and updates is None):
            return None
        return _Formal(data, updates, positions, access.axis, selector)


@dataclass(frozen=True)
class _Formal:
    """An :class:`Access` in terms of a function's input numbers."""

    data: int
    updates: int | None
    positions: int
    axis: int
    selector: int | None

    def bind(self, node: ir.Node) -> Access | None:
        operands = list(node.inputs)
        used = [i for i in (self.data, self.updates, self.positions, self.selector) if i is not None]
        if max(used) >= len(operands) or any(operands[i] is None for i in used):
            return None

        def at(index: int | None) -> ir.Value | None:
            return operands[index] if index is not None else None

        data, positions = at(self.data), at(self.positions)
        assert data is not None and positions is not None
        return Access(data, at(self.updates), positions, self.axis, at(self.selector), node)


def _input_index(value: ir.Value | None, inputs: dict[int, int]) -> int | None:
    if value is None:
        return None
    start, _ = strip_shape_ops(value)
    return inputs.get(id(start))


def _core_access(node: ir.Node, what: str) -> Access | None:
    """The access of an operator whose row says how it addresses rows, of any domain; None for any other node."""
    row = of(node)
    kind = row.writes if what == "scatter" else row.reads
    if kind is None:
        return None
    operands = list(node.inputs)
    needed = 3 if what == "scatter" and kind is not Addressing.WINDOW else 2
    if len(operands) < needed or any(v is None for v in operands[:2]):
        return None
    return _ACCESSES[kind](node)


def _nd(node: ir.Node) -> Access | None:
    """ScatterND, GatherND: the indices' last axis has one column for each leading axis of the data."""
    data, indices = node.inputs[0], node.inputs[1]
    assert data is not None and indices is not None
    batch_dims = node.attributes["batch_dims"].as_int() if "batch_dims" in node.attributes else 0
    columns = [_column(value) for value in _columns(indices)]
    indexed = [(axis + batch_dims, root) for axis, root in enumerate(columns) if root is not None]
    if not indexed or len(indexed) > 2:
        return None
    axis, positions = indexed[-1]
    selector = indexed[0][1] if len(indexed) == 2 and indexed[0][0] == 0 else None
    if len(indexed) == 2 and selector is None:
        return None
    updates = node.inputs[2] if of(node).writes is not None else None
    return Access(data, updates, positions, axis, selector, node)


def _elements(node: ir.Node) -> Access | None:
    """ScatterElements, Scatter, GatherElements: one index per element, expanded from the positions."""
    data, indices = node.inputs[0], node.inputs[1]
    assert data is not None and indices is not None
    positions, _ = strip_shape_ops(indices)
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    return Access(data, node.inputs[2] if len(node.inputs) > 2 else None, positions, axis, None, node)


def _tensor_scatter(node: ir.Node) -> Access | None:
    """TensorScatter (opset 24): rows written from ``write_indices`` (default 0) on, along ``axis`` (default -2).

    With ``mode=circular`` they go on at row 0 behind the last one; the update is never longer than the cache.
    """
    data, updates = node.inputs[0], node.inputs[1]
    positions = node.inputs[2] if len(node.inputs) > 2 else None
    if data is None or updates is None:
        return None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -2
    return Access(data, updates, positions, axis, None, node)


_ACCESSES = {Addressing.ND: _nd, Addressing.ELEMENTS: _elements, Addressing.WINDOW: _tensor_scatter}


def _columns(indices: ir.Value) -> Iterable[ir.Value]:
    """The values concatenated on the last axis of an index tensor; itself where it is a single column."""
    start, _ = backward_moves(indices, SAME_PLACE)
    node = start.producer()
    if node is not None and node.op_type == "Concat" and not node.domain and len(node.inputs) <= MAX_COLUMNS:
        values = [value for value in node.inputs if value is not None]
        if len(values) == len(node.inputs):
            return values
    return (indices,)


def _column(value: ir.Value) -> ir.Value | None:
    """What an index column was expanded from; None for a plain 0..n-1 range, which takes the whole axis."""
    root, _ = strip_shape_ops(value)
    return None if is_whole_range(root) else root


def is_whole_range(value: ir.Value) -> bool:
    """True for ``Range(0, n, 1)``, and for a constant that counts 0, 1, 2 … along one of its axes."""
    node = value.producer()
    if node is not None and node.op_type == "Range" and not node.domain:
        first, step = constant_ints(node.inputs[0]), constant_ints(node.inputs[2])
        return first == [0] and step == [1]
    tensor = constant_of(value)
    if tensor is None or tensor.dtype not in _INDEX_TYPES or tensor.size > MAX_INDICES:
        return False
    array: Any = tensor.numpy()
    return any(bool((array == _steps(array.shape, axis)).all()) for axis in range(array.ndim))


def _steps(shape: tuple[int, ...], axis: int) -> Any:
    """0, 1, 2 … along ``axis``, to be compared with an array of ``shape``."""
    return np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])  # pyright: ignore[reportUnknownMemberType]


def strip_shape_ops(value: ir.Value) -> tuple[ir.Value, tuple[ir.Node, ...]]:
    """The value behind any Expand, Unsqueeze, Reshape, Cast …, and those nodes in graph order."""
    return backward_moves(value, VIEWS)


def backward_moves(value: ir.Value, ops: frozenset[str]) -> tuple[ir.Value, tuple[ir.Node, ...]]:
    """The value behind any nodes of ``ops``, followed through their first input, and those nodes in graph order."""
    nodes: list[ir.Node] = []
    while len(nodes) < 64:
        node = value.producer()
        if node is None or node.domain or node.op_type not in ops or not node.inputs or node.inputs[0] is None:
            break
        nodes.append(node)
        value = node.inputs[0]
    return value, tuple(reversed(nodes))


def reads_in_order(indices: ir.Value | None) -> bool:
    """True for ``0..n-1``, or ``Where(condition, constant, 0..n-1)``: a cache read whole, rows in their order."""
    if indices is None:
        return False
    root, _ = strip_shape_ops(indices)
    node = root.producer()
    if node is not None and node.op_type == "Where" and not node.domain and constant_ints(node.inputs[1]) is not None:
        kept = node.inputs[2]
        return kept is not None and is_whole_range(strip_shape_ops(kept)[0])
    return is_whole_range(root)
