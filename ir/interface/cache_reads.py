"""Finds operators that read a cache written in place otherwise than an attention of written rows does."""

from __future__ import annotations

import onnx_ir as ir

from ..core.constants import constant_of
from ..core.operators import of
from ..core.operators.walks import CACHE_COMPUTED, ROWS_TOGETHER, WEIGHTS_CHANGED, WEIGHTS_OF_HIDDEN
from ..states.attention import products
from ..states.base import State
from ..states.signatures import Signatures
from .analysis import analysis_of

MAX_VISITS = 200


def beside_attention(model: ir.Model, state: State) -> str:
    """Which operator takes rows of the cache together that is no attention: unwritten and rejected rows count there."""
    work = [value for value in (state.input, state.carried) if value is not None]
    seen = {id(value) for value in work}
    while work and len(seen) < MAX_VISITS:
        for node, index in work.pop().uses():
            if node.op_type in ROWS_TOGETHER and _takes_rows(model, state, node):
                return f"{node.op_type} {node.name!r} takes rows of {state.name!r} together outside of attention"
            for output in node.outputs if node.op_type in CACHE_COMPUTED and not node.domain and index == 0 else ():
                if id(output) not in seen:
                    seen.add(id(output))
                    work.append(output)
    return ""


def _takes_rows(model: ir.Model, state: State, node: ir.Node) -> bool:
    """Whether an operator takes rows of a cache together; one that goes over the width of each row does not."""
    facts, first = analysis_of(model).facts, node.inputs[0]
    shape = facts.shape(first) if first is not None else None
    if shape is None or not of(node).reduces:
        return True
    told = facts.ints(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    axes = list(node.attributes["axes"].as_ints()) if "axes" in node.attributes else list(told.items) if told else None
    if not axes or not all(isinstance(axis, int) for axis in axes):
        return True
    dims = [shape[int(axis) % len(shape)] for axis in axes if isinstance(axis, int)]
    return any(not isinstance(dim, int) or dim == state.length for dim in dims)


def before_written(state: State, signatures: Signatures) -> str:
    """Which attention reads the cache as it was before this run's rows are written: a token then misses its own."""
    found = products(state.input, signatures.reads) if state.input is not None and state.update is not None else ()
    taken = next((node for node, _ in found if node is not state.update), None)
    if taken is None:
        return ""
    return f"{taken.op_type} {taken.name!r} reads {state.name!r} before the rows of this run are written"


def otherwise_weighed(model: ir.Model, state: State, softmax: ir.Node) -> str:
    """Why an attention does not weigh a query's rows alone: a softmax over another axis, or hidden rows' weights."""
    if _axis_of(model, softmax) not in (-1, None):
        return f"{softmax.op_type} {softmax.name!r} does not weigh the rows of {state.name!r} for each query"
    node = _averaging(softmax)
    if node is None:
        return ""
    return f"{node.op_type} {node.name!r} takes in the weights of rows of {state.name!r} that are hidden"


def _axis_of(model: ir.Model, softmax: ir.Node) -> int | None:
    """The axis of a Softmax, counted from the end; None where nothing tells the rank of its operand."""
    attribute = softmax.attributes.get("axis")
    axis = attribute.as_int() if attribute is not None else -1
    if axis < 0 or softmax.inputs[0] is None:
        return axis
    shape = analysis_of(model).facts.shape(softmax.inputs[0])
    return axis - len(shape) if shape is not None else None


def _averaging(softmax: ir.Node) -> ir.Node | None:
    """The first operator behind a softmax that a hidden row's weight of 0 changes, before values are weighed."""
    work, seen = [softmax.outputs[0]], {id(softmax.outputs[0])}
    while work and len(seen) < MAX_VISITS:
        for node, _ in work.pop().uses():
            if node.op_type in WEIGHTS_OF_HIDDEN and _over_rows(node):
                return node
            for output in node.outputs if node.op_type in WEIGHTS_CHANGED and not node.domain else ():
                if id(output) not in seen:
                    seen.add(id(output))
                    work.append(output)
    return None


def _over_rows(node: ir.Node) -> bool:
    """Whether a reduction of weights ``[…, queries, rows]`` goes over the rows."""
    told = constant_of(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    if "axes" in node.attributes:
        axes = list(node.attributes["axes"].as_ints())
    else:
        axes = told.numpy().reshape(-1).tolist() if told is not None else [-1]
    return -1 in axes or 3 in axes or not axes
