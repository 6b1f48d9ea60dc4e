"""The sweep asks every node for its demands, in the graph, its bodies and its functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from ...symbolic.dims import Dim
from ..infer import Trust
from ..infer.context import Context, OpKey, ShapeRule
from ..infer.engine import MALFORMED, Sweep
from .demand import Demand, Demands, Relation, Rule
from .rules_basic import BASIC, broadcast, matmul, scale, skip_scale
from .rules_cache import CACHE

RULES: dict[OpKey, Rule] = {**BASIC, **CACHE}


def demands_of(model: ir.Model, binding: Mapping[str, Dim] | None = None, trust: Trust = Trust.VALUE_INFOS) -> Demands:
    """All demands of the graph that are not plainly met, with ``binding`` in the place of symbols at the graph inputs.

    Of equal pairs the first is kept. Declared shapes of inner values only fill in what cannot be derived, or nothing.
    """
    sweep = _Asking(model, dict(binding or {}), trust)
    facts = sweep.run()
    return Demands(sweep.found, facts, sweep.joined)


@dataclass(slots=True)
class _Asking(Sweep):
    found: list[Demand] = field(default_factory=list[Demand])
    seen: set[object] = field(default_factory=set[object])
    joined: dict[str, tuple[Dim, Dim]] = field(default_factory=dict[str, tuple[Dim, Dim]])
    counts: dict[int, int] = field(default_factory=dict[int, int])
    stack: list[ir.Node] = field(default_factory=list[ir.Node])

    def node(self, ctx: Context, node: ir.Node, key: OpKey, shape_rule: ShapeRule | None) -> None:
        """Asks, then propagates."""
        rule = RULES.get(key)
        if rule is not None:
            self.ask(ctx, node, rule)
        Sweep.node(self, ctx, node, key, shape_rule)
        if len(ctx.joined) != self.counts.get(id(ctx), 0):
            self.counts[id(ctx)] = len(ctx.joined)
            self.joined.update((str(fresh), sides) for sides, fresh in ctx.joined.items())

    def ask(self, ctx: Context, node: ir.Node, rule: Rule) -> None:
        """Keeps the demands that are new and not plainly met; a malformed node is the structure check's."""
        shapes = tuple(None if value is None else ctx.shapes.get(value) for value in node.inputs)
        known = (rule, shapes)
        if rule in _BY_SHAPE:  # the same shapes demand the same
            if known in self.seen:
                return
            self.seen.add(known)
        try:
            for relation, left, right in rule(ctx, node):
                self.demand(relation, left, right, node, shapes)
        except MALFORMED:
            return  # a node of impossible rank or attributes: the structure check names it

    def demand(self, relation: Relation, left: Dim, right: Dim, node: ir.Node, shapes: tuple[object, ...]) -> None:
        if left == right or _plainly(relation, left, right):
            return
        if (relation, left, right) in self.seen:
            return
        self.seen.add((relation, left, right))
        self.found.append(Demand(relation, left, right, node, shapes, tuple(self.stack)))  # pyright: ignore[reportArgumentType]

    def call(self, ctx: Context, node: ir.Node, function: ir.Function) -> None:
        """Remembers through which calls a node is reached."""
        self.stack.append(node)
        Sweep.call(self, ctx, node, function)
        self.stack.pop()


def _plainly(relation: Relation, left: Dim, right: Dim) -> bool:
    if (1 in (left, right) and relation is Relation.BROADCAST) or (right == 1 and relation is Relation.MULTIPLE):
        return True
    return isinstance(left, int) and isinstance(right, int) and relation.holds(left, right)


_BY_SHAPE = frozenset({broadcast, matmul, scale, skip_scale})
