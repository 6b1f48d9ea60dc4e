"""Values through which everything goes on say where a decoder may be cut; levels say which part computes what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ...core.dataflow import Point
from ...core.scopes import bodies, nested
from ...interface.analysis import analysis_of
from ...interface.roles import Role
from ...shapes.float_values import element_types
from ...states import State
from ..layer.spans import Span, find_boundaries


@dataclass(eq=False)
class Stretch:
    """What lies between two places where a decoder may be cut: the embedding, one layer, or the head.

    Attributes:
        number: The layer's, None of embedding and head.
        states: Those it carries.
    """

    number: int | None
    states: list[State]


@dataclass(eq=False)
class Boundaries:
    """The stretches of a graph in their order, and the value, or fused sum and norm, before each but the first.

    Attributes:
        embeds: Whether the first stretch is an embedding; else layers begin with an input of the graph.
        known: The element types of values.
    """

    model: ir.Model
    stretches: list[Stretch]
    between: list[Point]
    embeds: bool
    known: Mapping[ir.Value, ir.DataType]

    def before(self, stretch: int) -> list[ir.Value]:
        """What everything goes through before a stretch: one value, or both of a fused sum and norm."""
        return values_at(self.between[stretch - 1])

    def levels(self, entering: Sequence[Sequence[ir.Value]]) -> dict[ir.Value, int]:
        """For each value the part that computes it, counted from 0; -1 where it is of the run's inputs alone.

        ``entering`` are the values that parts begin with.
        """
        begins = {value: number for number, values in enumerate(entering, 1) for value in values}
        level = {value: 0 for value in (self.before(1) if self.embeds else ()) if value not in begins}
        for value, number in begins.items():
            if value.producer() is None:
                level[value] = number
        for node in self.model.graph:
            found = -1 if is_size(node) else max((level.get(value, -1) for value in taken_by(node)), default=-1)
            for value in node.outputs:
                level[value] = begins.get(value, max(found, level.get(value, -1)))
        return level


def values_at(point: Point) -> list[ir.Value]:
    """The values at a boundary: of an operator that sums and normalizes those that are used."""
    if isinstance(point, ir.Value):
        return [point]
    return [value for value in point.outputs if value.uses() or value.is_graph_output()]


def is_size(node: ir.Node) -> bool:
    """Whether an operator takes of a value its size alone: any other of that size does as well."""
    return node.op_type == "Shape" and not node.domain


def taken_by(node: ir.Node) -> Iterator[ir.Value]:
    """What an operator takes, what its bodies take from around it included."""
    yield from (value for value in node.inputs if value is not None)
    for body in bodies(node) if node.attributes else ():
        for scope in nested(body):
            for inner in scope:
                yield from (value for value in inner.inputs if value is not None)
            yield from (value for value in scope.outputs)


def find_stretches(model: ir.Model, where: str) -> Boundaries:
    """Where a decoder may be cut; PassRefused where no single value leads from each layer to the next."""
    states, roles, known = analysis_of(model).states, analysis_of(model).roles, element_types(model)
    spans = find_boundaries(model, states, roles, known, where)
    first = spans[0].start
    embeds = not (isinstance(first, ir.Value) and roles.get(first.name or "") is Role.EMBEDDINGS)
    stretches = [Stretch(span.number, list(span.states)) for span in spans]
    between = [span.start for span in spans[1:]] + [spans[-1].end]
    if embeds:
        stretches.insert(0, Stretch(None, []))
        between.insert(0, first)
    stretches.append(Stretch(None, []))
    _give_others(model, states, spans, stretches[int(embeds)])
    return Boundaries(model, stretches, between, embeds, known)


def _give_others(model: ir.Model, states: Sequence[State], spans: Sequence[Span], first: Stretch) -> None:
    """States that no layer was found by go with the layer of their number, else with the first one."""
    held = {id(state) for span in spans for state in span.states}
    by_number = {span.number: span for span in spans}
    for state in states:
        if id(state) not in held and state.layer not in by_number:
            first.states.append(state)
