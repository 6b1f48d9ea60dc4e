"""Each weight of a decoder is found by what it multiplies for: queries, keys, values, ways out, parts of an MLP."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ..core.operators import key_of, of
from ..core.operators.walks import ACTIVATED, WEIGHT_PICKED
from ..states import State
from ..states.attention import comes_from_softmax, path_to_softmax
from ..states.ports import KEY_VALUE_INPUTS
from .logits import logits_output


class Part(enum.Enum):
    """The part of a decoder that a tensor belongs to; several for one that serves several."""

    Q = "q"
    K = "k"
    V = "v"
    O = "o"  # noqa: E741  the field's own letter
    GATE = "gate"
    UP = "up"
    DOWN = "down"
    HEAD = "head"
    EMBEDDING = "embedding"
    CACHE = "cache"
    NORM = "norm"
    SCORE = "score"


MAX_PICKS = 12  # operators between a weight and what multiplies by it
MAX_WALK = 600  # nodes between a projection and the attention that it is for


@dataclass(eq=False)
class Product:
    """One product of computed rows with a weight, be that picked first (experts) or turned."""

    node: ir.Node
    rows: ir.Value
    weight: ir.Value
    parts: set[Part] = field(default_factory=set[Part])
    layer: int | None = None


@dataclass(eq=False)
class Attention:
    """One attention: where its queries, keys and values enter, its scores, what it gives, and its layer."""

    operands: tuple[tuple[Part, ir.Value], ...]
    scores: list[ir.Value]
    result: ir.Value
    layer: int


def weight_behind(value: ir.Value | None) -> ir.Value | None:
    """The float initializer of two axes or more that ``value`` is, picked or turned; None for what a run computes."""
    least = 2
    for _ in range(MAX_PICKS):
        if value is None:
            return None
        if value.is_initializer() and value.const_value is not None:
            return value if len(value.const_value.shape) >= least else None
        node = value.producer()
        if node is None or node.domain or node.op_type not in WEIGHT_PICKED:
            return None
        if node.op_type == "Gather":
            least = 3  # one matrix of a stack; rows of a matrix are words that a run looks up
        value = node.inputs[0]
    return None


def find_products(graph: ir.Graph) -> dict[ir.Node, Product]:
    """Every product with a weight, in graph order."""
    found: dict[ir.Node, Product] = {}
    for node in graph:
        product = of(node).product
        if product is None or product.rows is None or product.integers or product.weight >= len(node.inputs):
            continue
        operands = [node.inputs[port] for port in (product.rows, product.weight)]
        weights = [weight_behind(value) for value in operands]
        at = next((i for i in (1, 0) if weights[i] is not None and weights[1 - i] is None), None)
        rows = operands[1 - at] if at is not None else None
        if at is not None and rows is not None:
            weight = weights[at]
            assert weight is not None, "chosen for being one"
            found[node] = Product(node, rows, weight)
    return found


def find_attentions(graph: ir.Graph, states: Sequence[State], products: Mapping[ir.Node, Product]) -> list[Attention]:
    """The attentions in graph order, spelled out or fused; layers as the states' names tell them, else counted."""
    found: list[Attention] = []
    pending: dict[ir.Node | None, tuple[ir.Value, ir.Value, list[ir.Value]]] = {}  # by the softmax that they reach
    for node in graph:
        fused = KEY_VALUE_INPUTS.get(key_of(node))
        if fused is not None:
            ports = zip((Part.Q, Part.K, Part.V), (0, *fused), strict=True)
            given = [(part, node.inputs[at] if at < len(node.inputs) else None) for part, at in ports]
            operands = [(part, value) for part, value in given if value is not None]
            if len(operands) == 1:  # one tensor holds all three
                operands = [(part, operands[0][1]) for part in (Part.Q, Part.K, Part.V)]
            found.append(Attention(tuple(operands), [], node.outputs[0], len(found)))
        elif of(node).product is not None and node not in products:
            first, second = (*node.inputs, None, None)[:2]
            if first is None or second is None:
                continue
            if comes_from_softmax(first) or comes_from_softmax(second):
                weighed = second if comes_from_softmax(first) else first
                weights = first if weighed is second else second
                queries, keys, scores = pending.get(_softmax_behind(weights), (None, None, list[ir.Value]()))
                ends = ((Part.Q, queries), (Part.K, keys), (Part.V, weighed))
                operands = tuple((part, value) for part, value in ends if value is not None)
                found.append(Attention(operands, scores, node.outputs[0], len(found)))
            elif path := path_to_softmax(node):
                pending[path[-1]] = (first, second, [node.outputs[0], *(step.outputs[0] for step in path)])
    _number(found, states, products)
    return found


def _softmax_behind(value: ir.Value) -> ir.Node | None:
    """The softmax that weights come from, moved, cast or masked since."""
    work, seen = [value], {id(value)}
    while work and len(seen) < MAX_WALK:
        node = work.pop().producer()
        if node is not None and of(node).softmax:
            return node
        for operand in node.inputs if node is not None and not of(node).sizes else ():
            if operand is not None and id(operand) not in seen:
                seen.add(id(operand))
                work.append(operand)
    return None


def _number(found: Sequence[Attention], states: Sequence[State], products: Mapping[ir.Node, Product]) -> None:
    """Layers as the names of the states tell them, where those of all attentions do."""
    of_value = {id(v): s.layer for s in states for v in (s.new, s.carried, s.output, s.input) if v is not None}
    told: list[int | None] = []
    for attention in found:
        seen = [value for _, operand in attention.operands[1:] for value in before(operand, products)]
        own = [layer for value in (attention.result, *seen) if (layer := of_value.get(id(value))) is not None]
        beside = attention.result.producer()
        own += [layer for value in (beside.outputs if beside is not None else ())
                if (layer := of_value.get(id(value))) is not None]  # fmt: skip
        told.append(own[0] if own else None)
    if None not in told and len(set(told)) == len(told):
        for attention, layer in zip(found, told, strict=True):
            attention.layer = layer if layer is not None else attention.layer


def before(value: ir.Value, products: Mapping[ir.Node, Product]) -> Iterator[ir.Value]:
    """``value`` and everything it is made of, back to the products with weights: their results come, no further."""
    work, seen = [value], {id(value)}
    while work and len(seen) < MAX_WALK:
        current = work.pop()
        yield current
        node = current.producer()
        if node is None or node in products or of(node).sizes:
            continue
        for operand in node.inputs:
            if operand is not None and id(operand) not in seen:
                seen.add(id(operand))
                work.append(operand)


def label(model: ir.Model, states: Sequence[State], products: Mapping[ir.Node, Product]) -> list[Attention]:
    """Gives each product its parts, and those of attentions their layers; the attentions."""
    attentions = find_attentions(model.graph, states, products)
    logits = logits_output(model, states)
    fixed = fixed_values(model.graph)
    for product in _direct_before(logits, products, fixed, alone=True) if logits is not None else ():
        product.parts.add(Part.HEAD)
    for attention in attentions:
        for part, operand in attention.operands:
            for product in _nearest_before(operand, products):
                product.parts.add(part)
                product.layer = attention.layer
        for product in _nearest_after(attention.result, products):
            if not product.parts:
                product.parts.add(Part.O)
                product.layer = attention.layer
    _label_mlps(products, fixed)
    return attentions


def _nearest_before(value: ir.Value, products: Mapping[ir.Node, Product]) -> list[Product]:
    nodes = (found.producer() for found in before(value, products))
    return [products[node] for node in nodes if node is not None and node in products]


def _nearest_after(value: ir.Value, products: Mapping[ir.Node, Product]) -> list[Product]:
    """The products that take ``value``, moved, scaled or normed; a sum is where something else begins."""
    found: list[Product] = []
    work, seen = [value], {id(value)}
    while work and len(seen) < MAX_WALK:
        for node, _ in work.pop().uses():
            if node in products:
                found.append(products[node])
            elif not (of(node).adds or of(node).sizes):
                new = [output for output in node.outputs if id(output) not in seen]
                seen.update(map(id, new))
                work += new
    return found


def fixed_values(graph: ir.Graph) -> set[ir.Value]:
    """Weights, constants, and what is computed of nothing else."""
    fixed = set(graph.initializers.values())
    for node in graph:
        if all(value is None or value in fixed for value in node.inputs) and not node.op_type.startswith("Random"):
            fixed.update(node.outputs)
    return fixed


def _label_mlps(products: Mapping[ir.Node, Product], fixed: set[ir.Value]) -> None:
    """A product whose result is gated by another's activation is up, that other gate; what takes both is down."""
    for product in products.values():
        if not product.parts:
            product.parts |= _parts_of(_Own.of(product.node.outputs[0], fixed), products)
    hidden = {Part.GATE, Part.UP}
    for product in products.values():
        sources = _direct_before(product.rows, products, fixed) if not product.parts else []
        if sources and all(source.parts and source.parts <= hidden for source in sources):
            product.parts.add(Part.DOWN)


def _parts_of(own: _Own, products: Mapping[ir.Node, Product]) -> set[Part]:
    if own.joins:
        if own.cut and not own.activated:
            return set()  # gates of a convolution or recurrence
        return {Part.GATE if own.activated else Part.UP}
    if own.activated and any(user in products for value in own.values for user, _ in value.uses()):
        return {Part.GATE, Part.UP} if own.cut else {Part.UP}
    return set()


@dataclass(eq=False)
class _Own:
    """What is made of one product's result alone, element by element or row by row."""

    values: set[ir.Value]
    fixed: set[ir.Value]
    activated: bool = False
    cut: bool = False
    joins: bool = False

    @classmethod
    def of(cls, start: ir.Value, fixed: set[ir.Value]) -> _Own:
        own = cls({start}, fixed)
        work = [start]
        while work and len(own.values) < MAX_WALK:
            for node, _ in work.pop().uses():
                if own._holds(node):
                    own.activated |= node.op_type in ACTIVATED
                    own.cut |= of(node).moves and not of(node).keeps_all
                    new = [output for output in node.outputs if output not in own.values]
                    own.values.update(new)
                    work += new
        users = {node for value in own.values for node, _ in value.uses() if node.op_type == "Mul" and not node.domain}
        own.joins = any(not own._holds(node) for node in users)
        return own

    def _holds(self, node: ir.Node) -> bool:
        row = of(node)
        if not (row.elementwise or row.moves or row.reduces):
            return False
        data = node.inputs[:1] if row.moves else node.inputs
        return all(value is None or value in self.values or value in self.fixed for value in data)


def _direct_before(
    value: ir.Value, products: Mapping[ir.Node, Product], fixed: set[ir.Value], *, alone: bool = False
) -> list[Product]:
    """The products that ``value`` is made of element by element, and by no norm; ``alone``: of one of them."""
    found: dict[ir.Node, Product] = {}
    work, seen = [value], {value}
    while work and len(seen) < MAX_WALK:
        node = work.pop().producer()
        if node is None:
            continue
        if node in products:
            found[node] = products[node]
            continue
        row = of(node)
        if (row.norm and node.op_type != "Pow") or not (row.elementwise or row.moves):
            continue
        data = [v for v in (node.inputs[:1] if row.moves else node.inputs) if v is not None and v not in fixed]
        new = [operand for operand in data if operand not in seen] if len(data) == 1 or not alone else []
        seen.update(new)
        work += new
    return list(found.values())
