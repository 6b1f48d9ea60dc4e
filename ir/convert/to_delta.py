"""append, scatter <-> delta: whether the whole cache leaves the graph, or only the new rows."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ..dims import Dim
from ..errors import PassRefused
from ..roles import find_roles
from ..scopes import remove_dead
from ..states import State
from ..symbols import dims_of
from .options import Options
from .outcome import Outcome
from .scene import tokens_of
from .site import Site


def whole_to_delta(model: ir.Model, states: Sequence[State], chosen: Sequence[State], options: Options) -> Outcome:
    """Each output becomes the new rows; with ``transpose_keys`` a key's two last axes change places, in and out."""
    site, sequence = Site(model.graph, options.owner), _sequence(model, states, options)
    for state in chosen:
        if state.new is None or state.output is None or state.update is None or state.input is None or _moved(state):
            raise _refuse(
                model, options, state, "one tensor of new rows, the past moved by Transpose alone", state.evidence
            )
        if _turns(state, options) and (len(dims_of(state.input) or ()), state.axis) not in ((4, 2), (4, 3)):
            raise _refuse(model, options, state, "keys of four axes to transpose", str(state.input.shape))
    for state in chosen:
        assert state.input is not None and state.update is not None and state.new is not None
        dims = list(dims_of(state.input) or ())
        if state.axis is not None:
            dims[state.axis] = sequence
        new = _in_order_of_input(site, state, state.new)
        if _turns(state, options) and state.axis == 2:  # on axis 3 rows are the last axis already
            new, dims = _turn_keys(site, state, new), [dims[axis] for axis in _TURN]
        _hand_out(model.graph, site, state, new, dims)
    note = "the host owns the caches: it puts each run's rows where the next run's input has them"
    return Outcome(states=len(chosen), notes=(note,))


def delta_to_whole(model: ir.Model, states: Sequence[State], chosen: Sequence[State], options: Options) -> Outcome:
    """Each output becomes the whole cache, its axes in the input's order."""
    site, sequence = Site(model.graph, options.owner), _sequence(model, states, options)
    for state in chosen:
        if _moved(state) or state.carried is None or state.update is None or state.axis is None:
            raise _refuse(model, options, state, "a past moved by Transpose alone", state.evidence)
    for state in chosen:
        assert state.carried is not None and state.input is not None and state.axis is not None
        value = _in_order_of_input(site, state, state.carried)
        dims = list(dims_of(state.input) or ())
        rows = dims[state.axis]
        if state.update is not None and state.update.op_type == "Concat" and rows is not None:
            dims[state.axis] = rows + sequence
        _hand_out(model.graph, site, state, value, dims)
    return Outcome(states=len(chosen))


_TURN = (0, 1, 3, 2)


def _turns(state: State, options: Options) -> bool:
    return options.transpose_keys and state.kind == "key"


def _moved(state: State) -> bool:
    """True where more than a Transpose lies between the input and the update."""
    return any(node.op_type not in ("Identity", "Cast", "Transpose", "Concat") for node in state.chain)


def _in_order_of_input(site: Site, state: State, value: ir.Value) -> ir.Value:
    """``value``, which has the axes of the update, with the axes of the state's input."""
    assert state.input is not None
    for node in reversed(state.chain):
        if node.op_type == "Transpose":
            value = _transposed(site, value, _inverse(node), f"{state.name}/moved", state.input)
    return value


def _turn_keys(site: Site, state: State, new: ir.Value) -> ir.Value:
    """The key's input with its last axes changed, turned back where it is taken; and its new rows turned."""
    source = state.input
    assert source is not None and source.shape is not None
    taken = list(source.uses())
    plain = _transposed(site, source, list(_TURN), f"{state.name}/rows", source)
    site.place()
    for node, index in taken:
        node.replace_input_with(index, plain)
    plain.shape, source.shape = source.shape, ir.Shape([source.shape[axis] for axis in _TURN])
    return _transposed(site, new, list(_TURN), f"{state.name}/new/transposed", source)


def _hand_out(graph: ir.Graph, site: Site, state: State, value: ir.Value, dims: Sequence[Dim | None]) -> None:
    """Makes ``value`` the state's output under the output's own name; what only served the old one goes."""
    old, anchor = state.output, state.update
    assert old is not None and anchor is not None and state.input is not None and old.name is not None
    out = site.op("Identity", [value], f"{old.name}/out", dtype=state.input.dtype or ir.DataType.FLOAT)
    site.place_after(anchor)
    name, place = old.name, graph.outputs.index(old)
    graph.outputs[place] = out
    old.name, out.name = f"{name}/inner", name
    out.shape = ir.Shape([dim if isinstance(dim, int) or dim is None else str(dim) for dim in dims])
    producer = old.producer()
    remove_dead([producer] if producer is not None else [])
    state.output = out


def _transposed(site: Site, value: ir.Value, perm: list[int], name: str, like: ir.Value) -> ir.Value:
    dtype = like.dtype or ir.DataType.FLOAT
    return site.op("Transpose", [value], name, {"perm": perm}, dtype=dtype)


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
