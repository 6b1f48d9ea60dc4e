"""Where each tensor of a decoder stands: its layer, the parts that it belongs to, what reads or makes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ..core.operators import of
from ..core.operators.walks import SOFTMAX_TO_PRODUCT
from ..states import State
from .analysis import analysis_of
from .projections import Attention, Part, Product, find_products, fixed_values, label, weight_behind
from .roles import Role, find_roles


@dataclass
class Place:
    """One tensor's place.

    Attributes:
        layer: The decoder layer; None outside of all of them (embedding, head, masks).
        parts: What it belongs to; empty where the structure tells nothing.
        operators: Of a weight the operators that read it, of a computed tensor the one that makes it.
    """

    layer: int | None = None
    parts: set[Part] = field(default_factory=set[Part])
    operators: set[str] = field(default_factory=set[str])


@dataclass
class Places:
    """The places of a graph's weights and of the values that it computes or is given; by structure, not by names."""

    weights: dict[ir.Value, Place]
    values: dict[ir.Value, Place]
    products: dict[ir.Node, Product]
    attentions: list[Attention]

    @property
    def layers(self) -> list[int]:
        """The layers there are, in order."""
        return sorted({place.layer for place in self.weights.values() if place.layer is not None})


def places_of(model: ir.Model, states: Sequence[State] | None = None) -> Places:
    """The places of one graph; its main graph alone: what functions and branches hold has no place."""
    states = analysis_of(model).states if states is None else states
    roles = find_roles(model, states)
    products = find_products(model.graph)
    attentions = label(model, states, products)
    values = _Sweep(model, products, attentions).values()
    for node, product in products.items():
        own = values[node.outputs[0]]
        own.parts |= product.parts
        product.layer = product.layer if product.layer is not None else own.layer
        product.layer = None if Part.HEAD in product.parts else product.layer
        own.layer = product.layer
    weights: dict[ir.Value, Place] = {}
    for node, product in products.items():
        _note(weights, product.weight, node.op_type, product.parts, product.layer)
    tokens = [v for v in model.graph.inputs if roles.get(v.name or "") is Role.TOKEN_IDS]
    for node, table in _lookups(tokens):
        _note(weights, table, node.op_type, {Part.EMBEDDING}, None)
        values[node.outputs[0]].parts.add(Part.EMBEDDING)
    return Places(weights, values, products, attentions)


def _note(weights: dict[ir.Value, Place], value: ir.Value, op_type: str, parts: set[Part], layer: int | None) -> None:
    place = weights.setdefault(value, Place(layer))
    place.parts |= parts
    place.operators.add(op_type)
    place.layer = layer if place.layer is None else place.layer


def _lookups(tokens: list[ir.Value]) -> Iterator[tuple[ir.Node, ir.Value]]:
    """The tables that token ids look up, be the ids reshaped or clamped first."""
    work, seen = list(tokens), set(tokens)
    while work:
        for node, index in work.pop().uses():
            table = weight_behind(node.inputs[0]) if node.op_type == "Gather" and index == 1 else None
            if table is not None and table.const_value is not None and table.const_value.dtype.is_floating_point():
                yield node, table
            elif of(node).moves or of(node).elementwise:
                new = [output for output in node.outputs if output not in seen]
                seen.update(new)
                work += new


class _Sweep:
    """Layers go forward from each attention, and back from its projections; norms and scores are marked."""

    def __init__(self, model: ir.Model, products: Mapping[ir.Node, Product], attentions: list[Attention]) -> None:
        self.model = model
        self.products = products
        self.attentions = attentions
        self.fixed = fixed_values(model.graph)
        self.places: dict[ir.Value, Place] = {}

    def values(self) -> dict[ir.Value, Place]:
        """The place of each value of the main graph."""
        for value in self.model.graph.inputs:
            self.places[value] = Place()
        inside = {id(v): a.layer for a in self.attentions for v in (a.result, *a.scores)}
        for node in self.model.graph:
            layers = [self.places[v].layer for v in node.inputs if v is not None and v in self.places]
            layer = max((number for number in layers if number is not None), default=None)
            product = self.products.get(node)
            layer = product.layer if product is not None and product.layer is not None else layer
            for value in node.outputs:
                self.places[value] = Place(inside.get(id(value), layer), set(), {node.op_type})
        self._back()
        self._norms()
        self._scores()
        return self.places

    def _back(self) -> None:
        """What nothing but one layer's projections (or the head) read belongs to that layer, and not to the one before.

        A graph output is read by the host.
        """
        leads: dict[ir.Value, int | None] = {}
        for node in reversed(self.model.graph):
            for value in node.outputs:
                found = {self._lead(user, leads) for user, _ in value.uses()} - {_NOWHERE}
                if len(found) == 1 and _MIXED not in found and not value.is_graph_output():
                    leads[value] = layer = found.pop()
                    self.places[value].layer = layer if layer != _HEAD else None

    def _lead(self, user: ir.Node, leads: Mapping[ir.Value, int | None]) -> int | None:
        product = self.products.get(user)
        if product is not None:
            if Part.HEAD in product.parts:
                return _HEAD
            return product.layer if product.parts & {Part.Q, Part.K, Part.V} else _MIXED
        row = of(user)
        if row.sizes:
            return _NOWHERE
        if row.skip_norm or (row.adds and not self.fixed.intersection(user.inputs)):
            return _MIXED  # hidden states go on there
        found = {leads.get(output, _MIXED) for output in user.outputs if output.uses() or output.is_graph_output()}
        return found.pop() if len(found) == 1 else _MIXED

    def _norms(self) -> None:
        """What a norm computes on its way from hidden states to their normed form."""
        for node in self.model.graph:
            if not of(node).norm or node.inputs[0] is None:
                continue
            source, region, work = node.inputs[0], set(node.outputs), list(node.outputs)
            while work:
                for user, _ in work.pop().uses():
                    if user in self.products or not self._goes_on(user, region, source):
                        continue
                    new = [output for output in user.outputs if output not in region]
                    region.update(new)
                    work += new
            for value in region:
                self.places[value].parts.add(Part.NORM)

    def _goes_on(self, node: ir.Node, region: set[ir.Value], source: ir.Value) -> bool:
        if not (of(node).elementwise or of(node).reduces):
            return False
        cast = source.producer()
        sources = {source, *(cast.inputs if cast is not None and cast.op_type == "Cast" else ())}
        return all(v is None or v in region or v in sources or v not in self.places for v in node.inputs)

    def _scores(self) -> None:
        """From the product of queries and keys to what the values are weighed by."""
        for attention in self.attentions:
            work = list(attention.scores)
            for value in work:
                self.places[value].parts.add(Part.SCORE)
                maker = value.producer()
                softmax = maker is not None and of(maker).softmax
                behind = maker is not None and maker.op_type in SOFTMAX_TO_PRODUCT and value not in attention.scores
                for user, _ in value.uses() if softmax or behind else ():
                    if user.op_type in SOFTMAX_TO_PRODUCT and not user.domain:
                        work += [output for output in user.outputs if output not in work]


_NOWHERE, _HEAD, _MIXED = -3, -2, -1
"""In place of a layer: read by nobody, by the head, by several."""
