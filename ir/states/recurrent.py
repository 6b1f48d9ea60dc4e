"""States of a fixed size that each run transforms: SSM and linear-attention states, and counters of rows written."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence

import onnx_ir as ir

from ..core.operators import ALL, names, of
from ..core.operators.walks import CONVOLUTION_WINDOW, SIZE_ARITHMETIC, STATE_KEPT
from .base import Layout, State
from .names import kind_of
from .trace import backward, forward

MAX_VISITS = 4000
_PRODUCTS = names(lambda row: row.product and row.product.pairs)
_WRITES = names(lambda row: row.writes) | {"Where"}
"""Operators that write rows into a tensor."""


def match(
    value: ir.Value, outputs: Container[int], taken: Container[int], attends: Callable[[ir.Value], object] | None = None
) -> State | None:
    """The state that comes back with its own shape and type through sums and products, or None.

    ``outputs`` and ``taken`` hold the ids of the graph's outputs and of those that other states have. What ``attends``
    knows as keys or values, written on the way in parts of the state, tells that it is one as well.
    """
    if value.dtype is None or not value.dtype.is_floating_point() or value.shape is None or len(value.shape) < 2:
        return None
    ended: set[int] = set()
    written: ir.Value | None = None
    for node, reached in _carried_values(value, ended):
        if written is None and attends is not None and node.op_type in _WRITES and attends(reached):
            written = reached
        if id(reached) not in outputs or id(reached) in taken:
            continue
        if not (_same_type(value, reached) or (id(reached) in ended and may_be_same(value, reached))):
            continue
        if id(reached) in ended or _is_read(reached) or written is not None:
            return State(
                layout=Layout.RECURRENT,
                input=value,
                output=reached,
                update=node,
                carried=reached if _is_read(reached) or written is None else written,
                evidence=f"{node.op_type} {node.name!r} gives it back with its own shape",
            )
    return None


def _is_read(reached: ir.Value) -> bool:
    """A new state is read on inside the graph (y = C·h), where hidden rows that leave are an end; or a name says so."""
    return bool(reached.uses()) or kind_of(reached.name or "") in ("recurrent", "conv")


def match_scan(value: ir.Value, outputs: Container[int]) -> State | None:
    """The state that a Loop or Scan carries from step to step, or None."""
    for path in forward(value):
        for node, index in path.value.uses():
            carried = _loop_output(node, index)
            if carried is None:
                continue
            for end in forward(carried):
                if id(end.value) in outputs and _same_type(value, end.value):
                    return State(
                        layout=Layout.RECURRENT,
                        input=value,
                        output=end.value,
                        update=node,
                        carried=carried,
                        evidence=f"{node.op_type} {node.name!r} carries it from step to step",
                    )
    return None


def match_counter(value: ir.Value, outputs: Container[int]) -> State | None:
    """The integer that each run adds its own length to (``cumulative_length``), or None."""
    one_each = value.shape is not None and all(size == 1 for size in list(value.shape)[1:])
    if value.dtype is None or not value.dtype.is_integer() or not one_each:
        return None
    for path in forward(value):
        for node, index in path.value.uses():
            if node.op_type != "Add" or node.domain or not _is_length(node.inputs[1 - index]):
                continue
            for end in forward(node.outputs[0]):
                if id(end.value) in outputs:
                    return State(
                        layout=Layout.RECURRENT,
                        kind="length",
                        input=value,
                        output=end.value,
                        update=node,
                        carried=node.outputs[0],
                        evidence=f"Add {node.name!r} counts the rows written",
                    )
    return None


def is_final_state(output: ir.Value) -> bool:
    """True for an output that a recurrence ends in, in a graph that takes no past: read on inside the graph."""
    if output.shape is None or len(output.shape) < 3 or output.dtype is None or not output.dtype.is_floating_point():
        return False
    node = output.producer()
    if node is not None and node.op_type == "Add":
        return is_read_out(output)
    return feeds_convolution(output)


def is_read_out(output: ir.Value | None) -> bool:
    """True where a product with a computed tensor takes the output: y = C·h."""
    return output is not None and any(_reads_out(user, index) for user, index in output.uses())


def _reads_out(node: ir.Node, index: int) -> bool:
    """True for the product with a computed tensor (y = C·h), where a weight makes it a projection of hidden rows."""
    if node.op_type not in _PRODUCTS or node.domain or len(node.inputs) != 2:
        return False
    other = node.inputs[1 - index]
    return other is not None and backward(other)[0].const_value is None


def feeds_convolution(output: ir.Value) -> bool:
    """True where ``output`` is the end of what a Conv reads: Slice or Pad of the convolution's own input."""
    value = output
    for _ in range(8):
        value, _ = backward(value)
        node = value.producer()
        if node is None or node.op_type not in CONVOLUTION_WINDOW or node.inputs[-1] is None:
            return False
        source = node.inputs[-1] if node.op_type == "Concat" else node.inputs[0]
        if source is None:
            return False
        value = source
        for path in forward(value):
            if any(user.op_type == "Conv" and index == 0 for user, index in path.value.uses()):
                return True
    return False


def _carried_values(value: ir.Value, ended: set[int]) -> Iterator[tuple[ir.Node, ir.Value]]:
    """What ``value`` becomes, nearest first; ``ended`` gains the ids of what an RNN's state has ended as."""
    work, seen = [value], {id(value)}
    while work and len(seen) < MAX_VISITS:
        at = work.pop(0)
        for node, index in at.uses():
            for output in _handed_on(node, index):
                if id(at) in ended or of(node).ends:
                    ended.add(id(output))
                if id(output) not in seen:
                    seen.add(id(output))
                    yield node, output
                    work.append(output)


def _handed_on(node: ir.Node, index: int) -> Sequence[ir.Value]:
    """The outputs of ``node`` that hold the numbers of its operand ``index``."""
    if node.domain:
        return ()
    row = of(node)
    if row.ends:
        end = row.ends.get(index, len(node.outputs))
        return node.outputs[end : end + 1]
    handed = row.hands_on or ((0,) if row.writes is not None or node.op_type in STATE_KEPT else ())
    return node.outputs if handed == ALL or index in handed else ()


def _loop_output(node: ir.Node, index: int) -> ir.Value | None:
    if node.domain or node.op_type not in _CARRIED:
        return None
    first, carried = _CARRIED[node.op_type](node)
    at = index - first
    return node.outputs[at] if 0 <= at < carried and at < len(node.outputs) else None


def _carried_by_loop(node: ir.Node) -> tuple[int, int]:
    """Behind the number of turns and the condition; the body takes these as well."""
    return 2, len(node.attributes["body"].as_graph().inputs) - 2


def _carried_by_scan(node: ir.Node) -> tuple[int, int]:
    """The first operands; those that are scanned follow."""
    return 0, len(node.attributes["body"].as_graph().inputs) - node.attributes["num_scan_inputs"].as_int()


_CARRIED: dict[str, Callable[[ir.Node], tuple[int, int]]] = {"Loop": _carried_by_loop, "Scan": _carried_by_scan}
"""The first operand that a turn hands to the next, and how many follow it."""


def _is_length(value: ir.Value | None) -> bool:
    """True for a constant, or a number computed from shapes alone."""
    work, visits = [value], 0
    while work and visits < 40:
        visits += 1
        at = work.pop()
        if at is None:
            continue
        node = at.producer()
        if node is None:
            if at.const_value is None:
                return False
            continue
        if of(node).sizes or node.op_type == "Constant":
            continue
        if node.op_type not in SIZE_ARITHMETIC:
            return False
        work.extend(node.inputs)
    return True


def may_be_same(past: ir.Value, end: ir.Value) -> bool:
    """True for one type, where exporters leave sizes of the end open or make symbols up for them (``LSTMhn_dim_1``)."""
    if past.dtype != end.dtype or past.shape is None or end.shape is None or len(past.shape) != len(end.shape):
        return False
    return all(str(a) == str(b) or isinstance(b, ir.SymbolicDim) for a, b in zip(past.shape, end.shape, strict=True))


def _same_type(a: ir.Value, b: ir.Value) -> bool:
    if a.dtype != b.dtype or a.shape is None or b.shape is None:
        return False
    return [str(d) for d in a.shape] == [str(d) for d in b.shape]
