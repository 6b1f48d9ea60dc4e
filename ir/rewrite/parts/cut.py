"""A graph becomes parts: each takes what the one before it hands on, and what it needs of the run's inputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedOpsetsPass

from ...core.errors import PassRefused
from ...shapes.float_values import element_types
from ...shapes.infer import Facts, propagate
from ...shapes.infer.declared import is_fresh
from ...states import State
from ...symbolic.dims import Dim, free_symbols
from ..builder import Builder
from ..size_arithmetic import Anchors, anchors_of, emit_sizes
from .boundaries import Boundaries, is_size, taken_by, values_at

OWNER = "split"


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

    The graph is used up. PassRefused where a part needs an inner value of an earlier one and may not have it.
    """
    graph = found.model.graph
    entering = [found.before(at) for at in cuts]
    level = found.levels(entering)
    owners = _owners(found, cuts)
    plan = _plan(found, entering, level, owners, names)
    if not carry:
        _refuse_carried(plan, entering, names, owner)
    facts, known = propagate(found.model), element_types(found.model)
    for value in dict.fromkeys(value for values in plan.entering for value in values):
        _declare(value, facts, known)
    sources = {s.input.name or "": part for s, part in owners.items() if s.input is not None and s.traits.changes}
    own = [_own_shapes(graph, plan.entering[at], sources, at, facts) for at in range(len(names))]
    parts = _extract(found.model, plan, names, lambda v, at: v.producer() is not None and facts.shape(v) in own[at])
    _keep_unused(graph, parts)
    shapes = {v.name or "": facts.shape(v) for v in (*graph.inputs, *level, *plan.made) if v.name}
    others, borrowed = {*sources, *_names(plan.made)}, list[list[str]]()
    for at, part in enumerate(parts):
        handed = {*_names(plan.entering[at]), *(name for name, source in sources.items() if source == at)}
        borrowed.append(_own_lengths(part, handed, others, shapes, OWNER))
    if not carry:
        _refuse_foreign(borrowed, parts, names, sources, owner)
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


def _declare(value: ir.Value, facts: Facts, known: Mapping[ir.Value, ir.DataType]) -> None:
    """A type for what becomes an input and an output."""
    if value.dtype is None and value in known:
        value.type = ir.TensorType(known[value])
    shape = facts.shape(value)
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


def _own_lengths(
    part: ir.Model,
    handed: Collection[str],
    others: Collection[str],
    shapes: Mapping[str, Sequence[Dim | None] | None],
    owner: str,
) -> list[str]:
    """Reads sizes of other parts' values off an input of the part that has the same; the names of those left.

    ``handed`` are the inputs that are the part's own, ``others`` those that may be another's.
    """
    inputs = {value.name or "": value for value in part.graph.inputs}
    own = [name for name in inputs if name in handed or name not in others]
    anchors = anchors_of([inputs[name] for name in own], [shapes.get(name) or () for name in own])
    left: list[str] = []
    for name in [name for name in inputs if name in others and name not in handed]:
        value, shape = inputs[name], shapes.get(name)
        same = next((inputs[other] for other in own if shape is not None and shapes.get(other) == shape), None)
        if not all(is_size(use.node) for use in value.uses()):
            left.append(name)
        elif same is not None:
            ir.convenience.replace_all_uses_with(value, same)
        elif shape is None or not _spelled_out(part.graph, value, shape, anchors, owner):
            left.append(name)
        if not value.uses():
            part.graph.inputs.remove(value)
    return left


def _spelled_out(graph: ir.Graph, value: ir.Value, shape: Sequence[Dim | None], anchors: Anchors, owner: str) -> bool:
    """Whether the sizes of a value could be computed of those of inputs; nodes that read them are then replaced."""
    builder = Builder(graph, owner)
    made: list[tuple[ir.Node, ir.Value]] = []
    for node in [use.node for use in value.uses()]:
        ends = [node.attributes[k].as_int() if k in node.attributes else None for k in ("start", "end")]
        dims = [dim for dim in shape[slice(*ends)] if dim is not None]
        if len(dims) < len(shape[slice(*ends)]) or any(free_symbols(dim) - anchors.keys() for dim in dims):
            return False
        made.append((node, emit_sizes(builder, dims, anchors, f"{value.name}/sizes")))
    builder.place_front()
    for node, sizes in made:
        ir.convenience.replace_all_uses_with(node.outputs[0], sizes)
        graph.remove(node, safe=True)
    return True


def _refuse_foreign(
    borrowed: Sequence[Sequence[str]],
    parts: Sequence[ir.Model],
    names: Sequence[str],
    sources: Mapping[str, int],
    owner: str,
) -> None:
    """Refuses parts that need the rows of a state that another one carries, or the size of a value inside it."""
    for part, taken, name in zip(parts, borrowed, names, strict=True):
        inputs = {value.name: value for value in part.graph.inputs}
        rows = [s for s in taken if s not in sources or not all(is_size(use.node) for use in inputs[s].uses())]
        if rows:
            whose = repr(names[sources[rows[0]]]) if rows[0] in sources else "another part"
            raise PassRefused(
                f"part {name!r} needs what {whose} has",
                where=owner,
                found=", ".join(rows[:4]),
                wanted="parts that take hidden states and their own past",
                hint="carry=true hands it on.",
            )
