"""The forward half of a round looks at every node once, scope by scope, and notes what may replace its outputs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...shapes.infer import IntTensor
from ...shapes.infer.declared import FLOATS, INTEGERS
from .identities import IDENTITIES
from .numbering import node_key
from .numeric import EXACT, fold
from .replace_uses import stand_in
from .reshape_targets import TARGETS
from .scope import MAX_BYTES, MAX_SHARED, Round, Scope


def walk(state: Round) -> None:
    """Walks the main graph and its subgraphs; functions are left as they are."""
    _graph(state, Scope(state.model.graph))


def _graph(state: Round, scope: Scope) -> None:
    for value in scope.graph.initializers.values():
        _initializer(state, scope, value)
    for node in scope.graph:
        _node(state, scope, node)


def _initializer(state: Round, scope: Scope, value: ir.Value) -> None:
    """Small initializers are known by content; a second one of the same content gives way to the first."""
    tensor = value.const_value
    if tensor is None or value.is_graph_input() or value.is_graph_output():
        return
    content = state.content(value)
    key = content if content is not None else _small_key(state, value, tensor)
    if key is None or (content is None and tensor.size > MAX_SHARED):
        return
    first = scope.first(key, value)
    if first is not value:
        state.moved[value] = first


def _small_key(state: Round, value: ir.Value, tensor: ir.TensorProtocol) -> object:
    """What tells a small constant apart; None for a weight and for anything outside the file."""
    if isinstance(tensor, ir.ExternalTensor) or tensor.dtype not in NUMERIC or tensor.nbytes > MAX_BYTES:
        return None
    array = tensor.numpy()
    state.arrays[value] = array
    return tensor.dtype, array.shape, array.tobytes()


def _node(state: Round, scope: Scope, node: ir.Node) -> None:
    key = (node.domain, node.op_type)
    if key == ("", "Constant"):
        _constant(state, scope, node)
        return
    if _contents(state, scope, node):
        return
    if state.model.functions and node.op_identifier() in state.model.functions:
        return  # whatever its name, its body says what it does
    for graph in state.bodies.get(node, ()):
        _graph(state, scope.inner(graph))
    rewrite = TARGETS.get(key)
    if rewrite is not None:
        rewrite(state, scope, node)
    inputs = state.read(node)
    identity = IDENTITIES.get(key)
    if identity is not None:
        same = identity(state, node, inputs)
        if same is not None and stand_in(state, node, same):
            state.count("identities")
            return
    if key in EXACT and _folded(state, scope, node, inputs):
        return
    _number(state, scope, node, inputs)


def _constant(state: Round, scope: Scope, node: ir.Node) -> None:
    """``Constant`` becomes an initializer; one that is a graph output stays a node."""
    value = node.outputs[0]
    content = state.content(value)
    if content is not None:
        if value.is_graph_output():
            return
        state.moved[value] = state.constant(scope, content, value)
        return
    tensor = None if value.is_graph_output() else _stated(node)
    if tensor is None:
        return
    key = _small_key(state, value, tensor)
    found = scope.get(key) if key is not None else None
    if found is None:
        found = state.fresh_constant(scope, tensor, value)
        if key is not None:
            scope.own[key] = found
            state.arrays[found] = state.arrays[value]
        state.facts.shapes[found] = state.facts.shapes[value]
    state.moved[value] = found


def _stated(node: ir.Node) -> ir.TensorProtocol | None:
    """The tensor of a ``Constant``; None for strings and sparse ones, which stay nodes."""
    for name, attr in node.attributes.data.items():
        if name == "value" and attr.type is ir.AttributeType.TENSOR:
            return attr.value  # not as_tensor(): that one checks a protocol, at 0.1 ms a constant
        if name in ("value_float", "value_floats"):
            return ir.Tensor(np.array(attr.value, np.float32))
    return None


def _contents(state: Round, scope: Scope, node: ir.Node) -> bool:
    """Outputs of known content: constants where concrete, else the first value of the same content."""
    known = 0
    for value in node.outputs:
        tensor = state.content(value)
        if tensor is None:
            continue
        if value.is_graph_output():
            known += _known_output(state, scope, node, value)
        elif tensor.concrete:
            state.moved[value] = state.constant(scope, tensor, value)
            known += 1
        else:
            first = scope.first(tensor, value)
            if first is not value:
                state.moved[value] = state.current(first)
                known += 1
    state.count("folded", known)
    return known > 0 and known == len(node.outputs)


def _known_output(state: Round, scope: Scope, node: ir.Node, value: ir.Value) -> int:
    """A graph output of known content: an Identity of the constant; returns how many outputs that changed."""
    tensor = state.facts.contents[value]
    if not tensor.concrete:
        scope.first(tensor, value)
        return 0
    return int(len(node.outputs) == 1 and stand_in(state, node, state.constant(scope, tensor, value)))


def _folded(state: Round, scope: Scope, node: ir.Node, inputs: list[ir.Value | None]) -> bool:
    """A float operation over small constants becomes a constant."""
    value = node.outputs[0]
    arrays: list[np.ndarray] = []
    for given in inputs:
        array = None if given is None else array_of(state, given)
        if array is None:
            return False
        arrays.append(array)
    found = fold(state.ctx, node, arrays)
    if found is None:
        return False
    dtype = ir.DataType.from_numpy(found.dtype)
    state.count("folded")
    return stand_in(state, node, state.numeric(scope, found, dtype, value))


def array_of(state: Round, value: ir.Value) -> np.ndarray | None:
    """The data of a small constant; None for anything else."""
    array = state.arrays.get(value)
    if array is None:
        content: IntTensor | None = state.content(value)
        if content is not None and content.concrete:
            array = state.arrays[value] = content.numpy()
    return array


def _number(state: Round, scope: Scope, node: ir.Node, inputs: list[ir.Value | None]) -> None:
    """The same computation on the same inputs is done once."""
    key = node_key(node, inputs)
    if key is None:
        return
    first = scope.first(key, node)
    if first is node or any(value.is_graph_output() for value in node.outputs):
        return
    for value, same in zip(node.outputs, first.outputs, strict=True):
        state.moved[value] = state.current(same)
    state.count("repeated")


NUMERIC = frozenset(INTEGERS) | frozenset(FLOATS) | {ir.DataType.BFLOAT16}
