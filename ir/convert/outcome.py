"""What a conversion did, and the names and types it leaves."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from ..dims import free_symbols
from ..propagate import Facts
from ..propagate.declared import is_fresh
from ..scopes import nested
from ..symbols import dims_of
from .options import Names
from .scene import Scene


@dataclass
class Outcome:
    """The states converted, sentences for the user, what the inputs must hold, and inputs that went."""

    states: int = 0
    notes: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    removed: list[str] = field(default_factory=list[str])


def settle_types(scene: Scene, facts: Facts) -> None:
    """Tells every value's new shape where the old type spoke of lengths that are gone; drops what is not known."""
    gone = {str(scene.past), *scene.aliases} - {str(scene.rows)}
    for scope in nested(scene.model.graph):
        for node in scope:
            for value in node.outputs:
                _settle(value, gone, facts)


def _settle(value: ir.Value, gone: set[str], facts: Facts) -> None:
    declared, found = dims_of(value), facts.shape(value)
    if declared is None:
        return
    stale = any(free_symbols(dim) & gone for dim in declared)
    if found is not None and not any(is_fresh(dim) for dim in found):
        if stale or tuple(declared) != found:
            value.shape = ir.Shape([dim if isinstance(dim, int) else str(dim) for dim in found])
    elif stale:
        value.shape = None


def rename_retained(scene: Scene) -> None:
    """``names=retained``: each output is called after its input, ``past_key.0`` and ``past_key.0_RetainedState``."""
    if scene.options.names is not Names.RETAINED:
        return
    states = [state for state in scene.states if state.input is not None and state.output is not None]
    plain = {id(s): f"past_{s.kind}.{s.layer}" for s in states if s.kind in ("key", "value") and s.layer is not None}
    unique = len(set(plain.values())) == len(states)
    taken = {v.name for v in (*scene.model.graph.inputs, *scene.model.graph.outputs)}
    for state in states:
        assert state.input is not None and state.output is not None
        name = plain[id(state)] if unique and plain[id(state)] not in taken else state.name
        state.input.name, state.output.name = name, f"{name}_RetainedState"


def unused(graph: ir.Graph) -> list[ir.Node]:
    """The nodes of the main graph whose results nothing takes."""
    return [node for node in graph if not any(value.uses() or value.is_graph_output() for value in node.outputs)]
