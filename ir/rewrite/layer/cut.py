"""One decoder layer becomes a graph: hidden states, mask and past go in; hidden states and new rows come out."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedOpsetsPass

from ...core.dataflow import reached
from ...core.errors import PassRefused, UsageError
from ...core.scopes import holders
from ...interface.roles import find_roles
from ...shapes.float_values import element_types
from ...shapes.infer import propagate
from ...states import Layout, State, find_states
from ...symbolic.symbols import dims_of
from ..builder import Builder
from ..convert.context import tokens_of
from ..convert.fused_rows import hand_out_fused_rows
from ..convert.to_delta import hand_out_rows, hands_out_rows
from .open_norm import open_norm
from .spans import Span, find_spans


class Shared(enum.Enum):
    """What becomes of masks, rotary tables and the like, which all layers take."""

    INSIDE = "inside"
    INPUTS = "inputs"


@dataclass(eq=False)
class Cut:
    """A layer cut out.

    Attributes:
        model: The layer.
        number: Which one.
        hidden: The input that holds the hidden states.
        result: The output that holds them.
        whole: States that leave the layer as they were before, and not as new rows.
        shared: Inputs that the whole graph computed once for all layers.
    """

    model: ir.Model
    number: int
    hidden: str
    result: str
    whole: tuple[str, ...]
    shared: tuple[str, ...]


def cut_layer(model: ir.Model, number: int, shared: Shared, *, owner: str, where: str) -> Cut:
    """Cuts layer ``number`` out of ``model``, whose dimensions are numbers; ``model`` is used up.

    Inputs and outputs keep the names they have in the whole graph. PassRefused where no single value leads into the
    layer or out of it, or where it takes what other layers carry; UsageError for a layer that there is not.
    """
    states = find_states(model)
    roles = find_roles(model, states)
    known = element_types(model)
    _refuse_hidden(states, where)
    spans = find_spans(model, states, roles, known, where)
    span = _chosen(spans, number, where)
    hidden, result = (open_norm(model.graph, point, owner) for point in (span.start, span.end))
    length = dims_of(tokens_of(model, roles, states, where)) or ()
    entering = _entering(model, hidden, span.states) if shared is Shared.INPUTS else []
    whole = _hand_out(model.graph, span.states, Builder(model.graph, owner), length[1] if len(length) > 1 else None)
    others = _other_outputs(model, hidden, result, states)
    _declare(model, (hidden, result, *entering, *others), where)
    cut = _extract(model, (hidden, *entering), [result, *_carried(model, span.states), *others])
    _refuse_others(cut, spans, span, where)
    return Cut(cut, span.number, hidden.name or "", result.name or "", whole, tuple(v.name or "" for v in entering))


def _refuse_hidden(states: Iterable[State], where: str) -> None:
    """Refuses states inside functions and branches: a layer is cut out of the main graph."""
    for state in states:
        if state.branch is not None or state.function:
            inside = "a branch of an If" if state.branch is not None else "a local function"
            put = "ir-inline"
            if state.branch is not None:
                put = f"select-branch{{input={state.branch.switch} value=true|false}}"
            raise PassRefused(
                f"state {state.name!r} lives inside {inside}", where=where, hint=f"Put {put} before this pass."
            )


def _chosen(spans: Sequence[Span], number: int, where: str) -> Span:
    for span in spans:
        if span.number == number:
            return span
    there = ", ".join(str(span.number) for span in spans)
    raise UsageError("there is no such layer", where=f"{where}, index", found=number, wanted=f"one of {there}")


def _hand_out(graph: ir.Graph, states: Sequence[State], builder: Builder, length: object) -> tuple[str, ...]:
    """Makes the new rows of each state its output; the names of states whose rows no value holds."""
    whole: list[str] = []
    for state in states:
        if state.layout is Layout.DELTA or state.input is None:
            continue
        if (
            state.layout is Layout.FUSED
            and isinstance(length, int)
            and hand_out_fused_rows(graph, builder, state, length)
        ):
            continue
        if state.traits.keeps_every_row and isinstance(length, int) and hands_out_rows(state):
            hand_out_rows(graph, builder, state, length)
        else:
            whole.append(state.name)
    return tuple(whole)


def _entering(model: ir.Model, hidden: ir.Value, states: Sequence[State]) -> list[ir.Value]:
    """What the layer takes that depends on neither its hidden states nor its past, computed from the run's inputs."""
    outer = holders(model.graph)
    own = reached([hidden, *(state.input for state in states if state.input is not None)], outer)
    computed = reached(model.graph.inputs, outer) - set(model.graph.inputs)
    taken: dict[ir.Value, None] = {}
    for node in model.graph:
        if node not in own:
            continue
        inner = [n for n, holder in outer.items() if holder is node]
        for value in (value for taker in (node, *inner) for value in taker.inputs):
            if value is not None and value in computed and value not in own:
                taken[value] = None
    return list(taken)


def _declare(model: ir.Model, values: Iterable[ir.Value], where: str) -> None:
    """Types for what becomes an input or output; PassRefused where nothing tells one."""
    facts, known = propagate(model), element_types(model)
    for value in values:
        shape = facts.shape(value)
        if value.dtype is None and value in known:
            value.type = ir.TensorType(known[value])
        if shape is not None and all(isinstance(dim, int) for dim in shape):
            value.shape = ir.Shape([dim for dim in shape if isinstance(dim, int)])
        elif value.dtype is None or not all(isinstance(dim, int) for dim in dims_of(value) or (None,)):
            node = value.producer()
            raise PassRefused(
                f"nothing tells the type of {value.name!r}, which would be an input or output of the layer",
                where=where,
                found=f"{value.dtype}{value.shape}, given by {node.op_type if node is not None else 'no operator'}",
                hint="Put ir-shape-inference before this pass.",
            )


def _carried(model: ir.Model, states: Sequence[State]) -> list[ir.Value]:
    """The states' outputs in the graph's order."""
    outputs = {state.output for state in states}
    return [value for value in model.graph.outputs if value in outputs]


def _other_outputs(model: ir.Model, hidden: ir.Value, result: ir.Value, states: Sequence[State]) -> list[ir.Value]:
    """Further outputs of the whole graph that the layer computes: attention weights, states nobody took for such."""
    outer = holders(model.graph)
    own = reached([hidden], outer) - reached([result], outer)
    carried = {state.output for state in states}
    return [value for value in model.graph.outputs if value in own and value not in carried and value is not hidden]


def _extract(model: ir.Model, entering: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Model:
    """The nodes between as a model; inputs that none of them takes are left out."""
    given = [value for value in model.graph.inputs if value not in entering]
    graph = ir.convenience.extract(model.graph, [*entering, *given], list(dict.fromkeys(outputs)))
    graph.inputs[:] = [value for value in graph.inputs if value.uses() or value.is_graph_output()]
    cut = ir.Model(
        graph,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        functions=list(model.functions.values()),
        metadata_props=dict(model.metadata_props),
    )
    RemoveUnusedFunctionsPass()(cut)
    RemoveUnusedOpsetsPass()(cut)
    return cut


def _refuse_others(cut: ir.Model, spans: Sequence[Span], span: Span, where: str) -> None:
    """Refuses a layer that takes what another one carries: alone it would need that layer's past too."""
    taken = {value.name for value in cut.graph.inputs}
    for other in spans:
        for state in other.states if other is not span else ():
            if state.input is not None and state.input.name in taken:
                raise PassRefused(
                    f"layer {span.number} reads what layer {other.number} carries",
                    where=where,
                    found=f"state {state.name!r}",
                    wanted="a layer that takes hidden states and its own past",
                )
