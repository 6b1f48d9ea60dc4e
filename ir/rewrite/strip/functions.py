"""Local functions that hold a cache let go of it: past and present leave the signature, the body takes the new rows."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import onnx_ir as ir

from ...core.scopes import all_nodes, remove_dead
from ...states.base import Layout, Pairing, State
from ...states.control_flow_outputs import cache_functions
from ...states.find import find_in
from ..builder import Builder
from ..recorder import narrow_node
from .detach_state import Unbinding, anchors_of, initial_dims, take_out

_KNOWN = frozenset((Layout.APPEND, Layout.SCATTER))


@dataclass(frozen=True)
class _Plan:
    """One function, its calls, the states of its body, and the places of their ends in its signature."""

    function: ir.Function
    calls: tuple[ir.Node, ...]
    states: tuple[State, ...] = ()
    places: tuple[tuple[int, int], ...] = ()


def release_functions(model: ir.Model, chosen: Sequence[State], owner: str) -> bool:
    """Takes ``chosen`` out of the functions that hold them; False, with nothing changed, where that cannot be done.

    Each call keeps its name and its other operands; the body is rewritten once, however often it is called. What is
    exact is proved on the inlined graph before: this is the same rewrite in another place.
    """
    plans: list[_Plan] = []
    for identifier in sorted(cache_functions(model)):
        plan = _plan(model, model.functions[identifier])
        if plan is None or not _all_calls_carry(plan, chosen):
            return False
        plans.append(plan)
    if not plans:
        return False
    presents = {id(state.output) for state in chosen}
    model.graph.outputs[:] = [value for value in model.graph.outputs if id(value) not in presents]
    for plan in plans:
        with _lend_types(plan):
            _take_out_of_body(plan, owner)
        _shorten(plan)
    return True


def _plan(model: ir.Model, function: ir.Function) -> _Plan | None:
    calls = tuple(node for node in all_nodes(model) if node.op_identifier() == function.identifier())
    plan = _Plan(function, calls)
    if not calls or any(call.graph is not model.graph for call in calls):
        return None
    with _lend_types(plan):
        states = find_in(model, function.graph)
        fit = all(s.pairing is Pairing.BOTH and s.layout in _KNOWN and s.axis is not None for s in states)
        unbinding = _unbinding(function, states, "")
        known = fit and all(None not in initial_dims(state, unbinding) for state in states)
    if not states or not known:
        return None
    inputs, outputs = ({id(v): i for i, v in enumerate(side)} for side in (function.inputs, function.outputs))
    places = tuple((inputs[id(state.input)], outputs[id(state.output)]) for state in states)
    return _Plan(function, calls, tuple(states), places)


def _all_calls_carry(plan: _Plan, chosen: Sequence[State]) -> bool:
    """True where every call hands each past and present of the body straight to a chosen state of the graph."""
    ends = {(id(state.input), id(state.output)) for state in chosen}
    return all((id(call.inputs[i]), id(call.outputs[o])) in ends for call in plan.calls for i, o in plan.places)


@contextmanager
def _lend_types(plan: _Plan) -> Generator[None]:
    """Lends the formal inputs the types of the first call's operands: the search reads shapes."""
    lent = [
        (formal, formal.shape, formal.type)
        for formal, actual in zip(plan.function.inputs, plan.calls[0].inputs, strict=False)
        if actual is not None
    ]
    for (formal, _, _), actual in zip(lent, (v for v in plan.calls[0].inputs if v is not None), strict=True):
        formal.shape, formal.type = actual.shape, actual.type
    try:
        yield
    finally:
        for formal, shape, kind in lent:
            formal.shape, formal.type = shape, kind


def _unbinding(function: ir.Function, states: Sequence[State], owner: str) -> Unbinding:
    gone = {id(state.input) for state in states}
    stay = [value for value in function.inputs if id(value) not in gone]
    return Unbinding(Builder(function, owner), anchors_of(stay), None, None)


def _take_out_of_body(plan: _Plan, owner: str) -> None:
    graph = plan.function.graph
    unbinding = _unbinding(plan.function, plan.states, owner)
    gone = {o for _, o in plan.places}
    graph.outputs[:] = [value for i, value in enumerate(graph.outputs) if i not in gone]
    for state in plan.states:
        take_out(state, unbinding)
    unbinding.builder.place_front()
    remove_dead(unbinding.dead)


def _shorten(plan: _Plan) -> None:
    """Drops the pasts from the formal inputs, and from each call its past operands and present outputs."""
    inputs, outputs = ({place[side] for place in plan.places} for side in (0, 1))
    formals = plan.function.graph.inputs
    formals[:] = [value for i, value in enumerate(formals) if i not in inputs]
    for call in plan.calls:
        operands = [value for i, value in enumerate(call.inputs) if i not in inputs]
        results = [value for i, value in enumerate(call.outputs) if i not in outputs]
        narrow_node(call, operands, results)
