"""A graph becomes parts: each takes what the one before it hands on, and what it needs of the run's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedOpsetsPass

from ...core.errors import PassRefused
from ...interface.analysis import analysis_of
from ...shapes.infer import Facts
from ...shapes.infer.declared import is_fresh
from ...states import State
from .boundaries import Boundaries, is_size, taken_by, values_at
from .sizes import OWNER, own_lengths, refuse_foreign


@dataclass(eq=False)
class PartCut:
    """One part.

    Attributes:
        model: Its graph.
        entering: What it takes of parts before it, the hidden states first.
        leaving: What it hands on.
        answers: Which of these are outputs of the whole graph too.
        borrowed: States of other parts of which it reads the size.
    """

    model: ir.Model
    entering: tuple[str, ...]
    leaving: tuple[str, ...]
    answers: tuple[str, ...]
    borrowed: tuple[str, ...]


@dataclass(eq=False)
class Members:
    """The nodes and weights of a part, and the values of other parts of which it takes the size."""

    nodes: set[ir.Node] = field(default_factory=set[ir.Node])
    weights: dict[ir.Value, None] = field(default_factory=dict[ir.Value, None])
    sizes: dict[ir.Value, None] = field(default_factory=dict[ir.Value, None])


@dataclass(eq=False)
class _Plan:
    """What parts take and give, and which part computes a value, decided before anything is made."""

    entering: list[list[ir.Value]]
    leaving: list[list[ir.Value]]
    outputs: list[list[ir.Value]]
    made: Mapping[ir.Value, int]


def cut_parts(
    found: Boundaries, cuts: Sequence[int], names: Sequence[str], *, carry: bool, owner: str
) -> list[PartCut]:
    """The parts of a graph that begin before the stretches ``cuts``; ``carry`` hands inner values on beside.

    The graph stays as it is. PassRefused where a part needs an inner value of an earlier one and may not have it.
    """
    graph = found.model.graph
    entering = [found.before(at) for at in cuts]
    level = found.levels(entering)
    owners = _owners(found, cuts)
    plan = _plan(found, entering, level, owners, names)
    if not carry:
        _refuse_carried(plan, entering, names, owner)
    facts = analysis_of(found.model).facts
    sources = {s.input.name or "": part for s, part in owners.items() if s.input is not None and s.traits.changes}
    own = [_own_shapes(graph, plan.entering[at], sources, at, facts) for at in range(len(names))]
    parts = _extract(found.model, plan, names, lambda v, at: v.producer() is not None and facts.shape(v) in own[at])
    for part, taken, given in zip(parts, plan.entering, plan.leaving, strict=True):
        _declare(part.graph, {value.name: value for value in (*taken, *given)}, facts, found.known)
    _keep_unused(graph, parts)
    shapes = {v.name or "": facts.shape(v) for v in (*graph.inputs, *level, *plan.made) if v.name}
    others, borrowed = {*sources, *_names(plan.made)}, list[list[str]]()
    for at, part in enumerate(parts):
        handed = {*_names(plan.entering[at]), *(name for name, source in sources.items() if source == at)}
        borrowed.append(own_lengths(part, handed, others, shapes, OWNER))
    if not carry:
        refuse_foreign(borrowed, parts, names, sources, owner)
    return [
        PartCut(part, _names(plan.entering[at]), _names(plan.leaving[at]), _both(plan, at), tuple(borrowed[at]))
        for at, part in enumerate(parts)
    ]


def _names(values: Iterable[ir.Value]) -> tuple[str, ...]:
    return tuple(value.name or "" for value in values)


def _both(plan: _Plan, at: int) -> tuple[str, ...]:
    return _names(value for value in plan.leaving[at] if value in plan.outputs[at])


def stretch_weights(found: Boundaries) -> list[list[ir.TensorProtocol]]:
    """The weights of each stretch of a graph, those that several take in each of them; the graph is not changed."""
    bounds = [[], *(values_at(point) for point in found.between)]
    outputs: list[list[ir.Value]] = [[] for _ in found.stretches]
    for at, values in enumerate(bounds[1:]):
        outputs[at] += values
    for at, stretch in enumerate(found.stretches):
        outputs[at] += [state.output for state in stretch.states if state.output is not None]
    given = {output for values in outputs for output in values}
    outputs[-1] += [value for value in found.model.graph.outputs if value not in given]
    inner = [[*values, *(others for later in bounds[:at] for others in later)] for at, values in enumerate(bounds)]
    members = members_of(found.model, inner, outputs, {})
    return [[v.const_value for v in part.weights if v.const_value is not None] for part in members]


def _owners(found: Boundaries, cuts: Sequence[int]) -> dict[State, int]:
    """The part of each state."""
    owners: dict[State, int] = {}
    for at, stretch in enumerate(found.stretches):
        part = sum(cut <= at for cut in cuts)
        owners |= dict.fromkeys(stretch.states, part)
    return owners


def _plan(
    found: Boundaries,
    entering: Sequence[Sequence[ir.Value]],
    level: Mapping[ir.Value, int],
    owners: Mapping[State, int],
    names: Sequence[str],
) -> _Plan:
    """What each part takes of earlier ones and hands on, and which outputs of the graph are its."""
    takes: list[dict[ir.Value, None]] = [{}, *(dict.fromkeys(values) for values in entering)]
    begins = {value: at for at, values in enumerate(entering, 1) for value in values}
    made = {value: begins[value] - 1 if value in begins else part for value, part in level.items()}
    for node in found.model.graph:
        if is_size(node):
            continue
        part = max((level.get(value, -1) for value in taken_by(node)), default=-1)
        for value in taken_by(node) if part > 0 else ():
            if 0 <= made.get(value, -1) < part and value.producer() is not None:
                takes[part].setdefault(value)
    gives: list[dict[ir.Value, None]] = [{} for _ in names]
    for values in takes:
        for value in values:
            if value.producer() is not None:
                gives[max(made.get(value, 0), 0)].setdefault(value)
    of_states = {state.output: part for state, part in owners.items() if state.output is not None}
    outputs: list[list[ir.Value]] = [[] for _ in names]
    for value in found.model.graph.outputs:
        part = made.get(value, -1)
        outputs[part if part >= 0 else of_states.get(value, 0)].append(value)
    return _Plan([list(values) for values in takes], [list(values) for values in gives], outputs, made)


def _refuse_carried(plan: _Plan, entering: Sequence[Sequence[ir.Value]], names: Sequence[str], owner: str) -> None:
    for at, (own, values) in enumerate(zip(entering, plan.entering[1:], strict=True), 1):
        if len(values) > len(own):
            raise PassRefused(
                f"part {names[at]!r} needs an inner value of an earlier part",
                where=owner,
                found=", ".join(value.name or "" for value in values[len(own) :][:3]),
                wanted=f"{values[0].name!r} alone to lead into it",
                hint="carry=true hands such values on beside the hidden states.",
            )


def _declare(
    graph: ir.Graph, named: Mapping[str | None, ir.Value], facts: Facts, known: Mapping[ir.Value, ir.DataType]
) -> None:
    """Types for what became an input or an output, as the value of that name has inside the whole graph."""
    for value in (*graph.inputs, *graph.outputs):
        like = named.get(value.name)
        if like is None:
            continue
        if value.dtype is None and like in known:
            value.type = ir.TensorType(known[like])
        shape = facts.shape(like)
        if shape is not None:
            value.shape = ir.Shape([d if isinstance(d, int) else None if is_fresh(d) else str(d) for d in shape])


def members_of(
    model: ir.Model,
    bounds: Sequence[Sequence[ir.Value]],
    outputs: Sequence[Sequence[ir.Value]],
    made: Mapping[ir.Value, int],
    sized: Callable[[ir.Value, int], bool] = lambda value, at: False,
) -> list[Members]:
    """The nodes and weights of each part: what its outputs need, back to its ``bounds``, the values that it is given.

    ``made`` is the part that computes a value: of one of another part a size is taken, and the value is listed, and so
    is one of a size that something else tells, by ``sized``.
    """
    found: list[Members] = []
    for at, (given, wanted) in enumerate(zip(bounds, outputs, strict=True)):
        part = Members()
        seen, work = set(given), [value for value in wanted if value not in given]
        while work:
            value = work.pop()
            if value in seen:
                continue
            seen.add(value)
            node = value.producer()
            if node is None or node.graph is not model.graph:
                if node is None and value.is_initializer() and value.graph is model.graph:
                    part.weights[value] = None
                continue
            if node in part.nodes:
                continue
            part.nodes.add(node)
            taken = list(taken_by(node))
            if (
                is_size(node)
                and taken[0] not in seen
                and (made.get(taken[0], -1) not in (-1, at) or sized(taken[0], at))
            ):
                part.sizes[taken[0]] = None
            else:
                work.extend(taken)
        found.append(part)
    return found


def _own_shapes(
    graph: ir.Graph, entering: Iterable[ir.Value], sources: Mapping[str, int], at: int, facts: Facts
) -> set[object]:
    """The shapes of what a part is given whatever it takes: of a value of one of these the size is known there."""
    given = [value for value in graph.inputs if sources.get(value.name or "", at) == at]
    return {shape for value in (*entering, *given) if (shape := facts.shape(value)) is not None}


def _extract(
    model: ir.Model, plan: _Plan, names: Sequence[str], sized: Callable[[ir.Value, int], bool]
) -> list[ir.Model]:
    """The parts as models; inputs that none of a part's nodes takes are left out."""
    outputs = [list(dict.fromkeys([*leave, *own])) for leave, own in zip(plan.leaving, plan.outputs, strict=True)]
    members = members_of(model, plan.entering, outputs, plan.made, sized)
    listed: list[list[ir.Node]] = [[] for _ in names]
    holding: dict[ir.Node, list[int]] = {}
    for at, part in enumerate(members):
        for node in part.nodes:
            holding.setdefault(node, []).append(at)
    for node in model.graph:
        for at in holding.get(node, ()):
            listed[at].append(node)
    return [
        _model(model, [*plan.entering[at], *members[at].sizes], outputs[at], listed[at], members[at].weights, name)
        for at, name in enumerate(names)
    ]


def _model(
    model: ir.Model,
    entering: Sequence[ir.Value],
    outputs: Sequence[ir.Value],
    nodes: Sequence[ir.Node],
    weights: Iterable[ir.Value],
    name: str,
) -> ir.Model:
    taken = {value for node in nodes for value in taken_by(node)} | set(outputs)
    given = [v for v in model.graph.inputs if v in taken and v not in entering and not v.is_initializer()]
    view = ir.GraphView(
        [*entering, *given], outputs, nodes=nodes, initializers=tuple(weights), name=name,
        opset_imports=model.graph.opset_imports, metadata_props=model.graph.metadata_props,
    )  # fmt: skip
    part = ir.Model(
        view.clone(),
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        functions=list(model.functions.values()),
        metadata_props=dict(model.metadata_props),
    )
    if part.functions:
        RemoveUnusedFunctionsPass()(part)
    RemoveUnusedOpsetsPass()(part)
    return part


def _keep_unused(graph: ir.Graph, parts: Sequence[ir.Model]) -> None:
    """Inputs that nothing takes stay with the first part."""
    there = {value.name for part in parts for value in part.graph.inputs}
    first = parts[0].graph
    for value in graph.inputs:
        if value.name not in there and not value.is_initializer():
            first.inputs.append(ir.Value(name=value.name, type=value.type, shape=value.shape))
