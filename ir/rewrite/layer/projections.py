"""Finds the projections of each layer by what they feed: attention, the residual sum, the gated product."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ...core.constants import constant_of
from ...core.operators import key_of, names, of
from ...shapes.infer import Facts
from ..lm_head.ops import HEADS, is_constant
from .mixing import FUSED, PRODUCTS
from .spans import SIZES, Span

SCANS = names(lambda row: row.mixes_tokens and not row.attention, None)
"""What mixes tokens and is no attention: convolutions and recurrences."""
PACKED = {"q": "qkv", "k": "qkv", "v": "qkv", "gate": "gate_up", "up": "gate_up"}


@dataclass(frozen=True)
class Part:
    """Columns ``low`` to ``high`` of what a product gives."""

    node: ir.Node
    low: int
    high: int


@dataclass(eq=False)
class Projection:
    """A product of rows and a constant weight in a layer, or columns of one that holds several.

    Attributes:
        layer: The layer's number; None for the head.
        kind: q, k, v, o, gate, up, down, in (of a convolution or recurrence), head; qkv, gate_up of a packed product;
            with ``cross_`` where keys come from an encoder; empty where its place tells nothing.
        node: The product.
        rows: Its operand of rows, as an index.
        weight: Its operand of weights.
        width: How many columns the rows have.
        low: The first of its columns.
        high: One behind the last.
        whole: How many columns the product has.
    """

    layer: int | None
    kind: str
    node: ir.Node
    rows: int
    weight: int
    width: int
    low: int
    high: int
    whole: int

    @property
    def columns(self) -> int:
        """How many columns it gives."""
        return self.high - self.low

    @property
    def is_part(self) -> bool:
        """Whether the product holds others too."""
        return self.columns != self.whole


def find_projections(model: ir.Model, spans: Sequence[Span], facts: Facts) -> list[Projection]:
    """All products with constant weights that the layers' rows go through, in graph order; convolutions are none."""
    walk = _Walk(model, facts, len(spans))
    starts = {point: at for at, span in enumerate(spans) for point in (span.start,)}
    starts[spans[-1].end] = len(spans)
    walk.sweep(starts)
    return walk.named([span.number for span in spans])


@dataclass(eq=False)
class _Facts:
    """What is known of one value on its way through a layer."""

    level: int = -1
    parts: frozenset[Part] = frozenset()  # the products that it comes from, no other between
    squashed: frozenset[Part] = frozenset()  # those on whose way an activation lies
    mixed: str = ""  # "mixed" or "cross_" right behind an attention


_NOTHING = _Facts()


@dataclass(eq=False)
class _Product:
    node: ir.Node
    ports: tuple[int, int]
    level: int
    widths: tuple[int, int]
    given: _Facts
    kinds: dict[tuple[int, int], set[str]] = field(default_factory=dict[tuple[int, int], "set[str]"])


class _Walk:
    """One sweep over the main graph in its order."""

    def __init__(self, model: ir.Model, facts: Facts, layers: int) -> None:
        self.graph, self.facts, self.layers = model.graph, facts, layers
        self.known: dict[ir.Value, _Facts] = {}
        self.products: dict[ir.Node, _Product] = {}

    def sweep(self, starts: Mapping[ir.Value | ir.Node, int]) -> None:
        """Follows every value; ``starts`` are the points at which layers begin, by number, the head last."""
        for value in self.graph.inputs:
            if value in starts:
                self.known[value] = _Facts(starts[value])
        for node in self.graph:
            given = [self.known.get(value, _NOTHING) for value in node.inputs if value is not None]
            level = max((found.level for found in given), default=-1)
            found = self._after(node, given, level) if level >= 0 and node.op_type not in SIZES else {}
            for value in node.outputs:
                start = starts.get(value, starts.get(node))
                if start is not None:
                    self.known[value] = _Facts(start)
                elif value in found:
                    self.known[value] = found[value]

    def _after(self, node: ir.Node, given: Sequence[_Facts], level: int) -> dict[ir.Value, _Facts]:
        product = self._product(node, level)
        if product is not None:
            self.products[node] = product
            part = Part(node, 0, product.widths[1])
            return {node.outputs[0]: _Facts(level, frozenset((part,)))}
        if self._mixes(node):
            return dict.fromkeys(node.outputs, _Facts(level, mixed=self._attend(node)))
        joined = _Facts(
            level,
            frozenset[Part]().union(*(f.parts for f in given)),
            frozenset[Part]().union(*(f.squashed for f in given)),
            max((f.mixed for f in given), default=""),
        )
        if of(node).bends:
            joined.squashed = joined.parts
        if node.op_type in _EDGES and len(joined.parts) == 1:
            return self._cut(node, joined)
        return dict.fromkeys(node.outputs, joined)

    def _product(self, node: ir.Node, level: int) -> _Product | None:
        ports = HEADS.get(key_of(node))
        if ports is None or node.op_type == "Conv" or len(node.inputs) <= max(ports):
            return None
        rows, weight = node.inputs[ports[0]], node.inputs[ports[1]]
        if rows is None or is_constant(rows) or not is_constant(weight):
            return None
        widths = self._last(rows), self._last(node.outputs[0])
        if widths[0] is None or widths[1] is None:
            return None
        return _Product(node, ports, level, (widths[0], widths[1]), self.known.get(rows, _NOTHING))

    def _last(self, value: ir.Value) -> int | None:
        shape = self.facts.shape(value)
        return shape[-1] if shape and isinstance(shape[-1], int) else None

    def _mixes(self, node: ir.Node) -> bool:
        if node.op_type in FUSED:
            return True
        return node.op_type in PRODUCTS and all(v is not None and not is_constant(v) for v in node.inputs[:2])

    def _attend(self, node: ir.Node) -> str:
        """Tells the products in front of an attention what they are; gives what is right behind it."""
        sides = [self.known.get(v, _NOTHING) if v is not None else _NOTHING for v in node.inputs]
        if node.op_type in SCANS:
            self._mark(frozenset[Part]().union(*(side.parts for side in sides)), "in")
            return "mixed"
        if node.op_type in PRODUCTS:
            if sides[0].mixed and not sides[0].parts:  # probabilities
                self._mark(sides[1].parts, "v")
                return sides[0].mixed
            cross = "" if sides[1].parts else "cross_"
            self._mark(sides[0].parts, f"{cross}q")
            self._mark(sides[1].parts, "k")
            return cross or "mixed"
        keys = of(node).key_value
        if keys is None or len(node.inputs) <= keys[0] or node.inputs[keys[0]] is None:
            self._mark_packed(node, sides[0].parts)
            return "mixed"
        cross = "" if sides[keys[0]].parts else "cross_"
        self._mark(sides[0].parts, f"{cross}q")
        self._mark(sides[keys[0]].parts, "k")
        self._mark(sides[keys[1]].parts if len(sides) > keys[1] else frozenset(), "v")
        return cross or "mixed"

    def _mark(self, parts: frozenset[Part], kind: str) -> None:
        for part in parts:
            self.products[part.node].kinds.setdefault((part.low, part.high), set()).add(kind)

    def _mark_packed(self, node: ir.Node, parts: frozenset[Part]) -> None:
        """Queries, keys and values in one operand: the operator's own head counts tell where each begins."""
        counts = [node.attributes.get(name) for name in ("num_heads", "kv_num_heads")]
        for part in parts:
            heads, kv = (count.as_int() if count is not None else 0 for count in counts)
            total = heads + 2 * (kv or heads)
            size, rest = divmod(part.high - part.low, total or 1)
            edges = [0, heads * size, (heads + (kv or heads)) * size, total * size]
            for kind, low, high in zip("qkv", edges, edges[1:], strict=False) if total and not rest else ():
                self._mark(frozenset((Part(part.node, part.low + low, part.low + high),)), kind)

    def _cut(self, node: ir.Node, joined: _Facts) -> dict[ir.Value, _Facts]:
        """The columns that each output of a Split or Slice along the last axis holds."""
        (part,) = joined.parts
        source = node.inputs[0]
        width = self._last(source) if source is not None else None
        held = source is not None and width == part.high - part.low
        lows = _EDGES[node.op_type](self, node, part.high - part.low) if held else None
        if lows is None or lows[-1] != width:
            return dict.fromkeys(node.outputs, joined)
        found: dict[ir.Value, _Facts] = {}
        for value, low in zip(node.outputs, lows, strict=False):
            high = low + (self._last(value) or 0)
            cut = frozenset((Part(part.node, part.low + low, part.low + high),))
            found[value] = _Facts(joined.level, cut, cut if joined.squashed else frozenset(), joined.mixed)
        return found

    def split(self, node: ir.Node, width: int) -> list[int] | None:
        """Where each output of a Split begins, and the width; None where the axis is another one."""
        axis = node.attributes.get("axis")
        if (axis.as_int() if axis is not None else 0) not in (-1, self._rank(node) - 1):
            return None
        sizes = [self._last(value) or 0 for value in node.outputs]
        return [sum(sizes[:at]) for at in range(len(sizes) + 1)]

    def slice(self, node: ir.Node, width: int) -> list[int] | None:
        """Where a Slice begins, and the width; None where the axis is another one, or it steps."""
        operands = [constant_of(value) for value in node.inputs[1:5]]
        if len(operands) < 3 or any(operand is None or operand.size != 1 for operand in operands):
            return None
        start, end, axis, *step = (int(operand.numpy().reshape(-1)[0]) for operand in operands if operand is not None)
        if axis not in (-1, self._rank(node) - 1) or step not in ([], [1]):
            return None
        low = min(max(start + width if start < 0 else start, 0), width)
        high = min(end + width if end < 0 else end, width)
        return [low, width] if high - low == self._last(node.outputs[0]) else None

    def _rank(self, node: ir.Node) -> int:
        return len(self.facts.shape(node.outputs[0]) or ())

    def named(self, numbers: Sequence[int]) -> list[Projection]:
        """The products with their kinds."""
        for level in range(self.layers):
            self._name_rest([p for p in self.products.values() if p.level == level])
        found: list[Projection] = []
        for product in self.products.values():
            layer = numbers[product.level] if product.level < self.layers else None
            found += _projections(product, layer)
        return found

    def _name_rest(self, layer: Sequence[_Product]) -> None:
        """Products behind an attention, and those of the feed-forward block."""
        if not any("v" in kinds for product in layer for kinds in product.kinds.values()):
            for product in layer:  # products of computed operands without values: a state space, no attention
                product.kinds = {edge: {"in"} for edge, kinds in product.kinds.items() if "in" in kinds}
        rest = {p.node: p for p in layer if not p.kinds}
        for product in list(rest.values()):
            if product.given.mixed and not any(part.node in rest for part in product.given.parts):
                product.kinds[0, product.widths[1]] = {product.given.mixed.removeprefix("mixed") + "o"}
                del rest[product.node]
        for product in rest.values():
            inner = [part for part in product.given.parts if part.node in rest]
            if not inner:
                continue
            product.kinds[0, product.widths[1]] = {"down"}
            alone = all(part in product.given.squashed for part in inner)
            for part in inner:
                kind = "gate" if part in product.given.squashed and not alone else "up"
                rest[part.node].kinds.setdefault((part.low, part.high), set()).add(kind)


_EDGES: Mapping[str, Callable[[_Walk, ir.Node, int], list[int] | None]] = {"Split": _Walk.split, "Slice": _Walk.slice}


def _projections(product: _Product, layer: int | None) -> list[Projection]:
    width, whole = product.widths

    def made(kind: str, low: int, high: int) -> Projection:
        return Projection(layer, kind, product.node, *product.ports, width, low, high, whole)

    kinds = {edge: next(iter(found)) for edge, found in product.kinds.items() if len(found) == 1}
    if layer is None or not kinds:
        several = next((found for found in product.kinds.values() if {"q", "k", "v"} <= found), None)
        return [made("head" if layer is None else "qkv" if several else "", 0, whole)]
    parts = [made(kind, *edge) for edge, kind in sorted(kinds.items())]
    if (0, whole) in kinds:
        return parts
    return [*parts, made(PACKED.get(parts[0].kind, ""), 0, whole)]
