"""A conversion reports what it did, and settles the names and types it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ...core.scopes import nested
from ...shapes.infer import Facts
from ...shapes.infer.declared import is_fresh
from ...states import State
from ...symbolic.dims import free_symbols
from ...symbolic.symbols import dims_of
from .context import ConversionContext
from .options import Names, Options

RETAINED = "_RetainedState"  # the qaic compiler pairs the output X_RetainedState with the input X


@dataclass
class Outcome:
    """What was converted, what the position inputs must hold, and which names changed.

    Attributes:
        states: How many states.
        notes: Sentences for the user.
        consecutive: Position inputs that must hold past, past + 1 …, without padding.
        cache_rows: Position inputs that now tell the cache row of each token, -1 for padding.
        renamed: Old names of states' inputs and outputs, and new ones.
        removed: Inputs that went.
    """

    states: int = 0
    notes: tuple[str, ...] = ()
    consecutive: tuple[str, ...] = ()
    cache_rows: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict[str, str])
    removed: list[str] = field(default_factory=list[str])


def settle_types(context: ConversionContext, facts: Facts) -> None:
    """Tells every value's new shape where the old type spoke of lengths that are gone; drops what is not known."""
    gone = {str(context.past), *context.aliases} - {str(context.rows)}
    for scope in nested(context.model.graph):
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


def rename_retained(model: ir.Model, states: Sequence[State], options: Options) -> dict[str, str]:
    """``names=retained``: each output is called after its input, ``past_key.0`` and ``past_key.0_RetainedState``.

    Returns old names and new ones; states whose names pair already keep theirs.
    """
    if options.names is not Names.RETAINED:
        return {}
    moved: dict[str, str] = {}
    states = [state for state in states if state.input is not None and state.output is not None]
    states = [state for state in states if not _is_retained(state)]
    plain = {id(s): f"past_{s.kind}.{s.layer}" for s in states if s.kind in ("key", "value") and s.layer is not None}
    unique = len(set(plain.values())) == len(states)
    taken = {v.name for v in (*model.graph.inputs, *model.graph.outputs)}
    for state in states:
        assert state.input is not None and state.output is not None
        name = plain[id(state)] if unique and plain[id(state)] not in taken else state.name
        moved |= {state.input.name or "": name, state.output.name or "": f"{name}{RETAINED}"}
        state.input.name, state.output.name = name, f"{name}{RETAINED}"
    return {old: new for old, new in moved.items() if old != new}


def _is_retained(state: State) -> bool:
    return state.input is not None and state.output is not None and state.output.name == f"{state.input.name}{RETAINED}"


def unused(graph: ir.Graph) -> list[ir.Node]:
    """The nodes of the main graph whose results nothing takes."""
    return [node for node in graph if not any(value.uses() or value.is_graph_output() for value in node.outputs)]
