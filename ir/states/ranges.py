"""Ranges ``0..ctx-1`` that a graph builds from a cache's length are found here, and the masks made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from ..core.operators import ALL, of
from ..core.operators.walks import INDEX_VIEWS, PARTS, SIZE_CHOSEN
from ..symbolic.dims import Dim
from ..symbolic.symbols import dims_of
from .attention import mask_operands, products
from .base import State
from .entries import entry_axis
from .signatures import Signatures, is_whole_range
from .trace import constant_ints, forward

MAX_VISITS = 2000
_TAKES = PARTS - {"Split"}  # whose second operand says which part


@dataclass(frozen=True)
class View:
    """A cache-index range as some consumer takes it: reshaped, with the operand's place in the consumer."""

    value: ir.Value
    consumer: ir.Node
    operand: int


def cache_values(state: State) -> Iterator[tuple[ir.Value, int | None]]:
    """Every value of the cache's own length, and the axis it has it on: the past, the written cache, its reads."""
    assert state.input is not None and state.carried is not None
    here = state.axis
    for path in forward(state.input, entry=entry_axis):
        here = path.axes.index(state.axis) if path.axes is not None and state.axis in path.axes else None
        if path.value is state.input or any(path.value is node.outputs[0] for node in state.chain):
            yield path.value, here
        if state.update is not None and any(path.value is operand for operand in state.update.inputs):
            yield state.carried, here
            for reader in state.readers:
                yield reader.outputs[0], here


def cache_ranges(states: Iterable[State]) -> list[ir.Node]:
    """The Range nodes ``0..n-1`` whose length is read from the shape of a state's cache, in the order met.

    An input whose length alone bounds the rows read (compute-context-length) counts as the cache's length.
    """
    found: dict[int, ir.Node] = {}
    for state in states:
        contexts = [(value, 0) for value in context_inputs(state)]
        for value, axis in (*cache_values(state), *contexts):
            for node, _ in value.uses():
                if node.op_type == "Shape" and not node.domain:
                    for use in _lengths(node, axis, len(value.shape) if value.shape is not None else None):
                        if use.consumer.op_type == "Range" and is_whole_range(use.consumer.outputs[0]):
                            found[id(use.consumer)] = use.consumer
    return list(found.values())


def _lengths(shape: ir.Node, axis: int | None, rank: int | None) -> Iterator[View]:
    """The uses of the one dimension of a Shape node that is ``axis``; of any where it is unknown which."""
    start = shape.attributes["start"].as_int() if "start" in shape.attributes else 0
    for node, _ in shape.outputs[0].uses():
        taken = constant_ints(node.inputs[1]) if node.op_type in _TAKES and len(node.inputs) > 1 else None
        at = None if taken is None or len(taken) != 1 else taken[0] + start
        at = at + rank if at is not None and at < 0 and rank is not None else at
        if at is None or axis is None or at == axis:
            yield View(shape.outputs[0], node, 0)
            if node.op_type in SIZE_CHOSEN:
                yield from _through(node.outputs[0], SIZE_CHOSEN)


def context_inputs(state: State) -> list[ir.Value]:
    """The graph inputs whose length alone bounds the rows that the state's readers take (compute-context-length)."""
    found: dict[int, ir.Value] = {}
    for reader in state.readers:
        for operand in reader.inputs[1:]:
            for value in _lengths_behind(operand):
                if value.is_graph_input() and value is not state.input and _only_length(value):
                    found[id(value)] = value
    return list(found.values())


def _only_length(value: ir.Value) -> bool:
    return all(node.op_type == "Shape" and not node.domain for node, _ in value.uses())


def _lengths_behind(value: ir.Value | None) -> Iterator[ir.Value]:
    """The inputs of the Shape nodes that the limit of a range behind ``value`` comes from."""
    work, visits = [value], 0
    while work and visits < 200:
        visits += 1
        at = work.pop()
        node = at.producer() if at is not None else None
        if node is None or node.domain:
            continue
        if node.op_type == "Shape" and node.inputs[0] is not None:
            yield node.inputs[0]
        elif node.op_type == "Range":
            work.append(node.inputs[1])
        elif node.op_type == "Where":
            work.append(node.inputs[2])
        elif node.op_type in SIZE_CHOSEN or node.op_type in INDEX_VIEWS:
            work.append(node.inputs[0])


def views(node: ir.Node) -> list[View]:
    """Where a Range's numbers are consumed, past any reshaping."""
    return [view for view in _through(node.outputs[0], INDEX_VIEWS) if view.consumer.op_type not in INDEX_VIEWS]


def unmasked_reads(states: Iterable[State], signatures: Signatures, ranges: Iterable[ir.Node]) -> list[State]:
    """The states whose rows reach a softmax with no mask built from the cache's row numbers or a mask input.

    Rows that were never written must not be attended to, or removing them would change the result.
    """
    known = {id(node) for node in ranges}
    return [state for state in states if not _is_masked(state, signatures, known)]


def _is_masked(state: State, signatures: Signatures, ranges: set[int]) -> bool:
    assert state.carried is not None
    length = state.length
    for product, role in products(state.carried, signatures.reads):
        if role == "value":
            return True  # its rows meet the weights that the key's mask made
        if _has_length_operand(product) or (state.starts_at_zero and _is_causal(product)):
            continue
        if not any(_cone_has_rows(value, ranges, length) for value in mask_operands(product)):
            return False
    return True


def _has_length_operand(product: ir.Node) -> bool:
    """True for the standard's attention with ``nonpad_kv_seqlen`` (24): rows behind the length are hidden."""
    return not product.domain and any(at < len(product.inputs) and product.inputs[at] for at in of(product).lengths)


def _is_causal(product: ir.Node) -> bool:
    """True for the standard's attention that aligns its causal mask to the top left: query i sees rows 0 … i.

    It does where no past and no length tell more; onnxruntime 1.32 and the operator's text (24) agree.
    """
    causal = product.attributes.get("is_causal")
    return product.op_type == "Attention" and not product.domain and causal is not None and causal.as_int() == 1


def _cone_has_rows(value: ir.Value, ranges: set[int], length: Dim | None) -> bool:
    """True where ``value`` is computed from one of the ranges, or from an input with a dimension of ``length`` rows."""
    work, seen = [value], {id(value)}
    while work and len(seen) < MAX_VISITS:
        at = work.pop()
        node = at.producer()
        if node is None and at.is_graph_input() and _has_length(at, length):
            return True
        if node is None:
            continue
        if id(node) in ranges:
            return True
        for operand in node.inputs:
            if operand is not None and id(operand) not in seen:
                seen.add(id(operand))
                work.append(operand)
    return False


def _has_length(value: ir.Value, length: Dim | None) -> bool:
    return length is not None and length in (dims_of(value) or ())


def _through(start: ir.Value, ops: frozenset[str]) -> list[View]:
    """Every use met from ``start`` when walking on through ``ops`` by their data operand."""
    uses: list[View] = []
    work, seen = [start], {id(start)}
    while work and len(uses) < MAX_VISITS:
        value = work.pop(0)
        for node, index in value.uses():
            uses.append(View(value, node, index))
            if node.domain or node.op_type not in ops or (index != 0 and of(node).numbers != ALL):
                continue
            if id(node.outputs[0]) not in seen:
                seen.add(id(node.outputs[0]))
                work.append(node.outputs[0])
    return uses


def takes_first_row(node: ir.Node, value: ir.Value) -> bool:
    """True where ``value``, an output of ``node``, is row 0 of its input's axis 0: M-RoPE's text row of ``[4, B, S]``.

    Written as Gather, as Slice, or as the first part of a Split.
    """
    read = _FIRST_ROW.get(node.op_type) if not node.domain else None
    return read is not None and read(node, value)


def _gathers_zero(node: ir.Node, value: ir.Value) -> bool:
    return _axis(node) == 0 and constant_ints(node.inputs[1]) == [0]


def _slices_one(node: ir.Node, value: ir.Value) -> bool:
    starts, ends, axes = (constant_ints(node.inputs[i]) if len(node.inputs) > i else None for i in (1, 2, 3))
    return starts == [0] and ends == [1] and axes == [0]


def _splits_first(node: ir.Node, value: ir.Value) -> bool:
    sizes = constant_ints(node.inputs[1]) if len(node.inputs) > 1 else None
    return _axis(node) == 0 and value.index() == 0 and (sizes is None or sizes[0] == 1)


def _axis(node: ir.Node) -> int:
    return node.attributes["axis"].as_int() if "axis" in node.attributes else 0


_FIRST_ROW = {"Gather": _gathers_zero, "Slice": _slices_one, "Split": _splits_first}
