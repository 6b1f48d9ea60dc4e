"""append, scatter <-> delta: the whole cache leaves the graph, or only the new rows do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ...core.constants import constant_of
from ...core.errors import PassRefused
from ...core.operators.walks import CHAIN_MOVED
from ...core.scopes import remove_dead
from ...interface.roles import find_roles
from ...shapes.dtypes import dtype_of
from ...states import Layout, State
from ...states.trace import backward
from ...symbolic.dims import Dim
from ...symbolic.symbols import dims_of
from ..builder import Builder
from .context import tokens_of
from .options import Options
from .outcome import Outcome


def whole_to_delta(model: ir.Model, states: Sequence[State], chosen: Sequence[State], options: Options) -> Outcome:
    """Each output becomes the new rows; with ``transpose_keys`` a key's two last axes change places, in and out."""
    builder, sequence = Builder(model.graph, options.owner), _sequence(model, states, options)
    for state in chosen:
        if not hands_out_rows(state):
            raise _refuse(
                model, options, state, "one tensor of new rows, the past moved by Transpose alone", state.evidence
            )
        assert state.input is not None
        if _turns(state, options) and (len(dims_of(state.input) or ()), state.axis) not in ((4, 2), (4, 3)):
            raise _refuse(model, options, state, "keys of four axes to transpose", str(state.input.shape))
    for state in chosen:
        hand_out_rows(model.graph, builder, state, sequence, turn=_turns(state, options))
    note = "the host owns the caches: it puts each run's rows where the next run's input has them"
    return Outcome(states=len(chosen), notes=(note,))


def hands_out_rows(state: State) -> bool:
    """Whether the rows that a run adds to a state are one value, in the order of the state's own axes."""
    parts = (state.new, state.output, state.update, state.input)
    return all(part is not None for part in parts) and not _moved(state)


def hand_out_rows(graph: ir.Graph, builder: Builder, state: State, sequence: Dim, *, turn: bool = False) -> None:
    """Makes the new rows of a run the state's output, under the output's name; ``turn`` changes the last two axes."""
    assert state.input is not None and state.update is not None and state.new is not None
    dims = list(dims_of(state.input) or ())
    if state.axis is not None:
        dims[state.axis] = sequence
    new = _in_order_of_input(builder, state, state.new)
    if turn and state.axis == 2:  # on axis 3 rows are the last axis already
        new, dims = _turn_keys(builder, state, new), [dims[axis] for axis in _TURN]
    hand_out(graph, builder, state, new, dims)


def delta_to_whole(model: ir.Model, states: Sequence[State], chosen: Sequence[State], options: Options) -> Outcome:
    """Each output becomes the whole cache, its axes in the input's order."""
    builder, sequence = Builder(model.graph, options.owner), _sequence(model, states, options)
    for state in chosen:
        if _moved(state) or state.carried is None or state.update is None or state.axis is None:
            raise _refuse(model, options, state, "a past moved by Transpose alone", state.evidence)
    for state in chosen:
        assert state.carried is not None and state.input is not None and state.axis is not None
        value = _in_order_of_input(builder, state, state.carried)
        dims = list(dims_of(state.input) or ())
        rows = dims[state.axis]
        if state.inside is Layout.APPEND and rows is not None:
            dims[state.axis] = rows + sequence
        hand_out(model.graph, builder, state, value, dims)
    return Outcome(states=len(chosen))


_TURN = (0, 1, 3, 2)


def _turns(state: State, options: Options) -> bool:
    return options.transpose_keys and state.kind == "key"


def _moved(state: State) -> bool:
    """True where more than a Transpose lies between the input and the update, or a grid that the output has not."""
    return any(node.op_type not in CHAIN_MOVED and not _is_own_grid(state, node) for node in state.chain)


def _is_own_grid(state: State, node: ir.Node) -> bool:
    """Whether ``node`` takes the past off the very grid that the present is put on."""
    if node.op_type != "DequantizeLinear" or state.output is None:
        return False
    _, chain = backward(state.output)
    grids = [other for other in chain if other.op_type == "QuantizeLinear"]
    return len(grids) == 1 and all(_same(*pair) for pair in zip(node.inputs[1:], grids[0].inputs[1:], strict=False))


def _same(value: ir.Value | None, other: ir.Value | None) -> bool:
    if value is other:
        return True
    tensors = [constant_of(one) if one is not None else None for one in (value, other)]
    if tensors[0] is None or tensors[1] is None:
        return False
    return tensors[0].dtype == tensors[1].dtype and np.array_equal(tensors[0].numpy(), tensors[1].numpy())


def _in_order_of_input(builder: Builder, state: State, value: ir.Value) -> ir.Value:
    """``value``, which has the axes of the update, with the axes and on the grid of the state's input."""
    assert state.input is not None
    for node in reversed(state.chain):
        if node.op_type == "Transpose":
            value = _transposed(builder, value, _inverse(node), f"{state.name}/moved", state.input)
        elif node.op_type == "DequantizeLinear":
            value = _put_on_grid(builder, value, node, f"{state.name}/grid", state.input)
    return value


def _put_on_grid(builder: Builder, value: ir.Value, grid: ir.Node, name: str, like: ir.Value) -> ir.Value:
    """``value`` as integers of the grid that ``grid`` takes numbers off."""
    dtype = like.dtype or ir.DataType.INT8
    axis = grid.attributes.get("axis")
    attributes: dict[str, object] = {"axis": axis.as_int()} if axis is not None else {}
    operands = [value, *grid.inputs[1:]]
    return builder.op("QuantizeLinear", operands, name, attributes, dtype=dtype, domain=grid.domain)


def _turn_keys(builder: Builder, state: State, new: ir.Value) -> ir.Value:
    """The key's input with its last axes changed, turned back where it is taken; and its new rows turned."""
    source = state.input
    assert source is not None and source.shape is not None
    taken = list(source.uses())
    plain = _transposed(builder, source, list(_TURN), f"{state.name}/rows", source)
    builder.place_front()
    for node, index in taken:
        node.replace_input_with(index, plain)
    plain.shape, source.shape = source.shape, ir.Shape([source.shape[axis] for axis in _TURN])
    return _transposed(builder, new, list(_TURN), f"{state.name}/new/transposed", source)


def hand_out(graph: ir.Graph, builder: Builder, state: State, value: ir.Value, dims: Sequence[Dim | None]) -> None:
    """Makes ``value`` the state's output under the output's own name; what only served the old one goes."""
    old, anchor = state.output, state.update
    assert old is not None and anchor is not None and state.input is not None and old.name is not None
    dtype = dtype_of(value) or state.input.dtype or ir.DataType.FLOAT
    out = builder.op("Identity", [value], f"{old.name}/out", dtype=dtype)
    builder.place_after(anchor)
    name, place = old.name, graph.outputs.index(old)
    graph.outputs[place] = out
    old.name, out.name = f"{name}/inner", name
    out.shape = ir.Shape([dim if isinstance(dim, int) or dim is None else str(dim) for dim in dims])
    producer = old.producer()
    remove_dead([producer] if producer is not None else [])
    state.output = out


def _transposed(builder: Builder, value: ir.Value, perm: list[int], name: str, like: ir.Value) -> ir.Value:
    dtype = like.dtype or ir.DataType.FLOAT
    return builder.op("Transpose", [value], name, {"perm": perm}, dtype=dtype)


def _inverse(node: ir.Node) -> list[int]:
    perm = list(node.attributes["perm"].as_ints())
    return [perm.index(axis) for axis in range(len(perm))]


def _sequence(model: ir.Model, states: Sequence[State], options: Options) -> Dim:
    """How many tokens a run takes."""
    where = f"{options.owner}, graph {model.graph.name!r}"
    tokens = tokens_of(model, find_roles(model, states), states, where)
    _, sequence, *_ = (*(dims_of(tokens) or ()), None, None)
    if sequence is None:
        raise PassRefused(f"the sequence of {tokens.name!r} is not named", where=where, found=str(tokens.shape))
    return sequence


def _refuse(model: ir.Model, options: Options, state: State, wanted: str, found: str) -> PassRefused:
    where = f"{options.owner}, graph {model.graph.name!r}"
    return PassRefused(f"state {state.name!r} cannot change hands", where=where, found=found, wanted=wanted)
