"""Lowers a graph: every node that the target does not take gives way to standard operators, or all are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import onnx_ir as ir

from ...core.errors import PassRefused
from ...core.scopes import nested, remove_dead
from ...shapes.infer import Facts, propagate
from ...symbolic.symbols import substitute_symbols
from ..recorder import loose_node
from .emitter import Emitter, Layout, Unfit
from .table import ROWS

MAX_REASONS = 6
Takes = Callable[[ir.Node], bool]
"""Whether the target takes a node as it is."""


@dataclass
class Lowered:
    """What became of a graph: nodes replaced by operator, masks whose padding stands behind, pasts that are whole."""

    counts: dict[str, int] = field(default_factory=dict[str, int])
    right_padded: tuple[str, ...] = ()
    whole_pasts: tuple[str, ...] = ()
    tolerance: float = 0.0
    left: tuple[str, ...] = ()


class LazyFacts:
    """The symbolic shapes of a graph, swept when first asked for; what replaces a value has its shape."""

    def __init__(self, model: ir.Model) -> None:
        """Sweeps nothing yet."""
        self.model = model
        self.found: Facts | None = None

    def __call__(self) -> Facts:
        """The facts."""
        if self.found is None:
            self.found = propagate(self.model)
        return self.found

    def move(self, old: ir.Value, new: ir.Value) -> None:
        """``new`` stands where ``old`` stood."""
        if self.found is not None and old in self.found.shapes:
            self.found.shapes[new] = self.found.shapes[old]


def lower_graph(
    model: ir.Model, takes: Takes, *, owner: str, layout: Layout = Layout.AUTO, leave: bool = False, opset: int = 0
) -> Lowered:
    """Replaces in place what the target does not take; run it on a copy first, for it may refuse half-way.

    Raises PassRefused naming every operator without a row and every node that its row does not fit, with counts; with
    ``leave`` they stay as they are, and are reported. ``opset`` is the version to write for, 0 for the graph's own.
    """
    result, reasons, settled = Lowered(), Counter[str](), dict[str, int]()
    facts = LazyFacts(model)
    for root in (model.graph, *model.functions.values()):
        own = root.opset_imports.get("", model.opset_imports.get("", 0))
        emitter = Emitter(root, owner, opset or own, facts, layout)
        emitter.blocks = emitter.blocks and takes(_in_blocks())
        for scope in list(nested(root)):
            for node in [node for node in scope if not takes(node) and node.op_identifier() not in model.functions]:
                _lower_node(emitter, node, facts, reasons, result)
        result.right_padded = (*result.right_padded, *emitter.right_padded)
        result.whole_pasts = (*result.whole_pasts, *emitter.whole_pasts)
        settled |= emitter.settled
    if reasons and not leave:
        raise _refusal(owner, model, reasons)
    result.left = tuple(f"{count} x {reason}: left as it is" for reason, count in reasons.most_common())
    substitute_symbols(model, settled)
    return result


def _in_blocks() -> ir.Node:
    """A weight in blocks, as MatMulNBits becomes one where the target takes it."""
    operands = [ir.Value(name=name) for name in ("blocks", "scales", "zero")]
    return loose_node("DequantizeLinear", operands, {"block_size": 32})


def _lower_node(emitter: Emitter, node: ir.Node, facts: LazyFacts, reasons: Counter[str], result: Lowered) -> None:
    kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    row = ROWS.get((node.domain, node.op_type))
    if row is None:
        reasons[f"{kind}: no row of the table replaces it"] += 1
        return
    emitter.place = node.name or node.op_type
    try:
        outputs = row.expand(emitter, node)
    except Unfit as unfit:
        emitter.recorded()
        reasons[f"{kind}: {unfit}"] += 1
        return
    _replace(emitter, node, outputs, facts)
    result.counts[kind] = result.counts.get(kind, 0) + 1
    result.tolerance = max(result.tolerance, row.tolerance)


def _replace(emitter: Emitter, node: ir.Node, outputs: list[ir.Value | None], facts: LazyFacts) -> None:
    """Puts the new nodes in the node's place; what served it alone goes with it."""
    values: list[ir.Value | None] = [None] * len(node.outputs)
    for index, (old, new) in enumerate(zip(node.outputs, outputs, strict=False)):
        if new is not None and (old.uses() or old.is_graph_output()):
            known = new in values or not emitter.is_new(new)
            taken = emitter("Identity", new) if known else new
            facts.move(old, taken)
            values[index] = taken
    operands = [value for value in node.inputs if value is not None]
    emitter.replace(node, values)
    remove_dead(producer for value in operands if (producer := value.producer()) is not None)
    for value in operands:
        if value.is_initializer() and not (value.uses() or value.is_graph_input() or value.is_graph_output()):
            owner = value.graph
            if owner is not None and value.name:
                owner.initializers.pop(value.name, None)


def _refusal(owner: str, model: ir.Model, reasons: Counter[str]) -> PassRefused:
    shown = [f"{count} x {reason}" for reason, count in reasons.most_common(MAX_REASONS)]
    more = len(reasons) - len(shown)
    return PassRefused(
        "operators have no replacement here",
        where=f"{owner}, graph {model.graph.name!r}",
        found="; ".join([*shown, *([f"and {more} more kinds"] if more else [])]),
        hint="Lower for a target that takes them, or export the graph without them.",
    )
