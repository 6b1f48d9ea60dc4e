"""Dominators tell where each layer of a decoder begins and ends: at the one value through which everything goes on."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import onnx_ir as ir

from ...core.dataflow import Point, following, reached
from ...core.errors import PassRefused
from ...core.operators import names
from ...core.operators.walks import SIZES
from ...core.scopes import holders
from ...interface.logits import logits_output
from ...interface.roles import Role
from ...states import State
from .mixing import mixing_nodes

LOOKUPS = names(lambda row: row.lookup, None)
SUMS = names(lambda row: row.adds)
SKIP_NORMS = names(lambda row: row.skip_norm, None)


@dataclass(eq=False)
class Span:
    """One layer: what enters it, what leaves it, and the states it carries.

    Attributes:
        number: As the states' names tell it, where every layer's do and differ; else the place in the order.
        start: Where the layer's products begin to differ from what goes around them; an operator where it adds two
            things up and passes on both the sum and its norm, so that no one value holds the hidden states.
        end: Where the next layer starts; of the last one, what enters the final norm.
        states: Those it updates.
    """

    number: int
    start: Point
    end: Point
    states: list[State] = field(default_factory=list[State])


def find_spans(
    model: ir.Model,
    states: Sequence[State],
    roles: Mapping[str, Role],
    known: Mapping[ir.Value, ir.DataType],
    where: str,
) -> list[Span]:
    """The layers of a decoder in their order; PassRefused where no single value leads from each to the next."""
    updated = [state for state in states if state.traits.changes and state.output is not None]
    if not updated:
        raise PassRefused(
            "no graph carries a state from run to run, so there is no decoder layer", where=where,
            wanted="a graph with a cache that enters and leaves it",
        )  # fmt: skip
    tokens = [value for value in model.graph.inputs if roles.get(value.name or "") in _GIVEN]
    by_tokens = reached(tokens, holders(model.graph))
    ours = [
        state for state in updated if by_tokens.intersection(_parts(state))
    ]  # others come from an encoder, or nowhere
    for source in _sources(model, roles, known):
        flow = _Flow.of(model, source, states)
        groups = flow.layers(ours)
        spans = flow.spans(groups) if groups is not None else []
        if spans and all(_is_one(point) for span in spans for point in (span.start, span.end)):
            return spans
    raise _unclear(where)


def find_boundaries(
    model: ir.Model,
    states: Sequence[State],
    roles: Mapping[str, Role],
    known: Mapping[ir.Value, ir.DataType],
    where: str,
) -> list[Span]:
    """The layers of a graph with or without states; where these tell none, one starts where tokens are mixed.

    Raises PassRefused where no single value leads from each to the next.
    """
    with contextlib.suppress(PassRefused):
        return find_spans(model, states, roles, known, where)
    if not any(role in _GIVEN for role in roles.values()):
        raise PassRefused("no input holds tokens or their embeddings, of which layers are counted", where=where)
    for source in _sources(model, roles, known):
        flow = _Flow.of(model, source, states)
        found = (flow.start_at(node) for node in mixing_nodes(model.graph, source, known))
        starts = sorted({start for start in found if start is not None})
        spans = flow.spans([(start, []) for start in starts]) if starts else []
        if spans and all(_is_one(point) for span in spans for point in (span.start, span.end)):
            return spans
    raise _unclear(where)


def _unclear(where: str) -> PassRefused:
    return PassRefused(
        "no single value carries everything from one layer to the next",
        where=where,
        found="paths from the tokens to later layers that go around earlier ones",
        wanted="hidden states that each layer takes from the one before it",
        hint="Put ir-inline before this pass where the layers are local functions.",
    )


_GIVEN = (Role.TOKEN_IDS, Role.EMBEDDINGS)


def _parts(state: State) -> list[Point]:
    parts = (state.new, state.update, state.output.producer() if state.output is not None else None)
    return [part for part in parts if part is not None]


def _is_one(point: Point) -> bool:
    """Whether one value holds the hidden states at a point, or an operator that can be opened hides it."""
    return isinstance(point, ir.Value) or point.op_type in SKIP_NORMS


def _sources(model: ir.Model, roles: Mapping[str, Role], known: Mapping[ir.Value, ir.DataType]) -> Iterator[ir.Value]:
    """What the hidden states begin with: embeddings given or looked up; last of all the tokens themselves."""
    for value in model.graph.inputs:
        if roles.get(value.name or "") is Role.EMBEDDINGS:
            yield value
    tokens = [value for value in model.graph.inputs if roles.get(value.name or "") is Role.TOKEN_IDS]
    work, seen = list(tokens), set(tokens)
    while work:
        for use in work.pop().uses():
            outputs = [value for value in use.node.outputs if value not in seen]
            seen.update(outputs)
            if use.node.op_type in LOOKUPS and known.get(use.node.outputs[0], ir.DataType.INT64).is_floating_point():
                yield use.node.outputs[0]
            elif use.node.graph is model.graph:
                work.extend(value for value in outputs if not known.get(value, ir.DataType.FLOAT).is_floating_point())
    yield from tokens


@dataclass(eq=False)
class _Flow:
    """Everything that the source reaches in the main graph, values and operators, and what dominates what."""

    points: list[Point]
    index: dict[Point, int]
    above: dict[int, int]  # the immediate dominator of each point; the source has none
    trunk: list[int] = field(default_factory=list[int])  # what all paths to the answer pass, in order
    place: dict[int, int] = field(default_factory=dict[int, int])  # and where in it each is

    @classmethod
    def of(cls, model: ir.Model, source: ir.Value, states: Sequence[State]) -> _Flow:
        outer = holders(model.graph)
        points: list[Point] = [source]
        index: dict[Point, int] = {source: 0}
        import networkx as nx  # 287 modules, and most commands look for no layer

        graph: nx.DiGraph[int] = nx.DiGraph()
        graph.add_node(0)
        for at, point in enumerate(points):  # grows while it is walked
            sizes = isinstance(point, ir.Node) and point.op_type in SIZES  # no content goes around a layer
            for other in following(point, outer) if not sizes else ():
                if other not in index:
                    index[other] = len(points)
                    points.append(other)
                graph.add_edge(at, index[other])
        above = cast("dict[int, int | None]", nx.immediate_dominators(graph, 0))  # pyright: ignore[reportUnknownMemberType]
        flow = cls(points, index, {at: top for at, top in above.items() if top is not None and top != at})
        carried, logits = {state.output for state in states}, logits_output(model, states)
        answers = [v for v in model.graph.outputs if v in index and (v is logits or v not in carried)]
        answers = [logits] if logits is not None and logits in index else answers
        flow.trunk = max((flow.chain(index[v]) for v in answers), key=len, default=[0])
        flow.place = {at: number for number, at in enumerate(flow.trunk)}
        return flow

    def chain(self, at: int) -> list[int]:
        """The dominators of a point from the source on, itself last."""
        found = [at]
        while found[-1] in self.above:
            found.append(self.above[found[-1]])
        return found[::-1]

    def start_of(self, state: State) -> int | None:
        """The place in the trunk of the last point that all paths to the state and to the answer pass."""
        return self._last_common(self._entries(state))

    def start_at(self, node: ir.Node) -> int | None:
        """The same for an operator."""
        return self._last_common([self.index[value] for value in node.inputs if value in self.index])

    def _last_common(self, entries: Iterable[int]) -> int | None:
        chains = [reversed(self.chain(at)) for at in entries]
        starts = [next(self.place[up] for up in chain if up in self.place) for chain in chains]
        return min(starts, default=None)

    def _entries(self, state: State) -> list[int]:
        """What the state's update takes of this run."""
        if state.new is not None and state.new in self.index:
            return [self.index[state.new]]
        producer = state.output.producer() if state.output is not None else None
        for node in (state.update, producer):
            if node is not None and node in self.index:
                return [self.index[value] for value in node.inputs if value is not None and value in self.index]
        return []

    def layers(self, states: Iterable[State]) -> list[tuple[int, list[State]]] | None:
        """States by the place in the trunk where their layer starts; None where it does not tell layers apart."""
        groups: dict[int, list[State]] = {}
        for state in states:
            start = self.start_of(state)
            if start is None:
                return None
            groups.setdefault(start, []).append(state)
        merged: list[tuple[int, list[State]]] = []
        for start, group in sorted(groups.items()):
            if merged and _layer_numbers(merged[-1][1]) == _layer_numbers(group) and len(_layer_numbers(group)) == 1:
                merged[-1][1].extend(group)  # one layer with two states one after the other
            else:
                merged.append((start, group))
        clear = merged and all(len(_layer_numbers(group)) <= 1 for _, group in merged)
        return merged if clear else None

    def spans(self, groups: Sequence[tuple[int, list[State]]]) -> list[Span]:
        starts = [start for start, _ in groups]
        ends = [*starts[1:], self._last_end(starts)]
        first = [next(iter(_layer_numbers(group)), None) for _, group in groups]
        named = None not in first and sorted(set(cast("list[int]", first))) == first
        numbers = cast("list[int]", first) if named else range(len(groups))
        point = [self.points[at] for at in self.trunk]
        return [
            Span(number, point[start], point[end], group)
            for number, (start, group), end in zip(numbers, groups, ends, strict=True)
        ]

    def _last_end(self, starts: Sequence[int]) -> int:
        """Where the last layer ends: as far along the trunk as the layers before it, else at the last sum."""
        kinds = [p.op_type if isinstance(p, ir.Node) else "" for p in (self.points[at] for at in self.trunk)]
        last = starts[-1] + 1
        for start, end in reversed(list(itertools.pairwise(starts))):
            steps = kinds[start + 1 : end + 1]
            if kinds[last : last + len(steps)] == steps:
                return last + len(steps) - 1
        sums = [at for at in range(last, len(kinds)) if self._sums(self.points[self.trunk[at]])]
        if not sums:
            return len(kinds) - 1
        return sums[-1] + (kinds[sums[-1]] in SUMS)  # the value that holds the sum, or the operator that hides it

    def _sums(self, point: Point) -> bool:
        """Whether an operator adds two things that both come from the tokens."""
        if not isinstance(point, ir.Node) or point.op_type not in SUMS | SKIP_NORMS:
            return False
        return sum(value in self.index for value in point.inputs[:2] if value is not None) == 2


def _layer_numbers(states: Iterable[State]) -> list[int]:
    """The layers that the states' names tell."""
    return sorted(Counter(state.layer for state in states if state.layer is not None))
