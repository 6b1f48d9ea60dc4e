"""Gives the head fewer or more rows: everything is checked first, then rewired."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ...core.scopes import remove_dead
from ...shapes.infer import Facts
from ..builder import Source
from .find import LmHead, Tokens
from .kept import Kept
from .ops import QUANTIZE, is_constant, key_of
from .path import Path, path_of
from .rows import Selector, text_of


@dataclass(eq=False)
class Rewrite:
    """One planned change; :meth:`apply` makes it, nothing before that touches the graph."""

    head: LmHead
    kept: Kept
    tokens: Tokens
    facts: Facts
    path: Path

    @classmethod
    def plan(cls, head: LmHead, kept: Kept, tokens: Tokens, facts: Facts, where: str) -> Rewrite:
        """Checks the path from the rows to the logits; raises PassRefused where rows are not kept apart."""
        return cls(head, kept, tokens, facts, path_of(head, kept, tokens, facts, where))

    def apply(self, selector: Selector) -> None:
        """Selects the rows in place of those that reach the head now."""
        count, point = selector.count, self.kept.point
        users = self._users(point)
        rows = self.kept.full
        if count.number is None or count.number != self.tokens.length:
            rows = selector.select(self.kept.full, self._width(self.kept.full), f"{self.kept.full.name}/last")
        selector.builder.place_before(users[0])
        for node in users:
            for at, given in enumerate(node.inputs):
                if given is point:
                    node.replace_input_with(at, rows)
        if self.kept.selects:
            self._drop(point)
        for node, at in self.path.sides:
            self._select_side(selector, node, at)
        for node, rank, width in self.path.targets:
            self._retarget(selector, node, rank, width)
        self._retype(selector)

    def _users(self, point: ir.Value) -> list[ir.Node]:
        """What reads the rows on the way to the logits, in graph order; a dropped selection has no other readers."""
        inside = [node for node in self.path.nodes if point in node.inputs]
        others = {use.node for use in point.uses()} - set(inside) if self.kept.selects else set[ir.Node]()
        graph = inside[0].graph
        return [node for node in graph if node in others or node in inside] if graph is not None else inside

    def _drop(self, point: ir.Value) -> None:
        node = point.producer()
        if node is not None:
            remove_dead([node])

    def _width(self, value: ir.Value) -> int:
        width = (self.facts.shape(value) or ("",))[-1]
        assert isinstance(width, int), "the rows' width was checked with the head"
        return width

    def _select_side(self, selector: Selector, node: ir.Node, at: int) -> None:
        given = node.inputs[at]
        assert given is not None, "a side operand is there"
        if selector.count.number != self.tokens.length:
            new = selector.select(given, self._width(given), f"{given.name}/last")
            selector.builder.place_before(node)
            node.replace_input_with(at, new)

    def _retarget(self, selector: Selector, node: ir.Node, rank: int, width: int) -> None:
        """A Reshape to rows takes what number is left for each batch line; to a flat list of rows, any number."""
        old, tokens = node.inputs[1], self.tokens
        batch: Source = tokens.batch if isinstance(tokens.batch, int) else (tokens.value, 0)
        rows = selector.dim
        lines: list[Source] = [-1, rows] if isinstance(rows, int) else [batch, -1]
        wanted: list[Source] = [*lines, width] if rank == 3 else [-1, width]
        node.replace_input_with(1, selector.builder.dims(wanted, f"{node.name}/target"))
        node.attributes.pop("allowzero", None)
        selector.builder.place_before(node)
        maker = old.producer() if old is not None else None
        if maker is not None:
            remove_dead([maker])

    def _retype(self, selector: Selector) -> None:
        """New row counts in the types on the path; shapes that hold them inside products are left to inference.

        The logits are declared with n rows, as the contract has it; what lies before them with what a run of fewer
        tokens gives, for a runtime plans its memory by those types.
        """
        tokens, dim = self.tokens, text_of(selector.dim)
        for value in [output for node in self.path.nodes for output in node.outputs]:
            shape = self.facts.shape(value)
            if value is self.head.output:
                value.shape = ir.Shape([text_of(tokens.batch), selector.count.dim, self.head.vocabulary])
            elif value.shape is None:
                continue
            elif shape is not None and len(shape) == 3 and shape[1] in (tokens.length, self.kept.count):
                value.shape = ir.Shape([value.shape[0], dim, value.shape[2]])
            else:
                value.shape = None


def before_quantization(kept: Kept, facts: Facts) -> Kept:
    """The rows before a QuantizeLinear and DequantizeLinear with constant scales, so that the pair stays together."""
    value = kept.full
    while not kept.selects:
        node = value.producer()
        if node is None or key_of(node) not in QUANTIZE or len(value.uses()) != 1 or value.is_graph_output():
            break
        given = node.inputs[0]
        if given is None or not all(is_constant(scale) for scale in node.inputs[1:]):
            break
        if facts.shape(given) != facts.shape(value):
            break
        value = given
    return Kept(value, value, kept.count) if not kept.selects else kept
