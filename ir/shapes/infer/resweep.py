"""A sweep that is done again after an edit looks only at what changed, and at what follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx_ir as ir

from .context import Context
from .declared import declared_dims, tensor_content, tensor_shape
from .engine import Sweep
from .facts import Facts

Signature = tuple[object, ...]
_BODIES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


@dataclass(slots=True)
class Resweep(Sweep):
    """A sweep of the main graph that remembers what each node was when its rules ran.

    Between two sweeps nodes may come, go, and get other inputs or attributes. Nodes with bodies and calls of functions
    are always asked again. The facts are one object, brought up to date: what they say of a value that is gone stays.
    """

    seen: dict[ir.Node, Signature] = field(default_factory=dict[ir.Node, Signature])
    changed: set[ir.Value] = field(default_factory=set[ir.Value])
    context: Context | None = None

    def run(self) -> Facts:
        """Brings the facts up to date; the first time that is a whole sweep."""
        ctx = self.context = self.context or Context(self.facts, self.graph, counter=self.counter)
        self.calls.clear()
        self.changed = set[ir.Value]()
        self.depth += 1
        self._inputs(ctx, self.model.graph.inputs)
        self._initializers(ctx, self.model.graph.initializers.values())
        functions = self.model.functions
        for node in self.model.graph:
            now = _signature(node) if not functions or node.op_identifier() not in functions else None
            before = self.seen.get(node)
            if now is None or before is None or not _same(before, now) or not self.changed.isdisjoint(node.inputs):  # pyright: ignore[reportArgumentType]
                self._again(ctx, node)
                self.seen[node] = now or ()
        self.depth -= 1
        return self.facts

    def _again(self, ctx: Context, node: ir.Node) -> None:
        old = [(ctx.shapes.pop(value, None), ctx.contents.pop(value, None)) for value in node.outputs]
        self.visit(ctx, node)
        for value, before in zip(node.outputs, old, strict=True):
            if (ctx.shapes.get(value), ctx.contents.get(value)) != before:
                self.changed.add(value)

    def _inputs(self, ctx: Context, values: Iterable[ir.Value]) -> None:
        for value in values:
            dims, known = declared_dims(value, self.binding), ctx.shapes.get(value)
            if dims is None:
                if ctx.shapes.pop(value, None) is not None:
                    self.changed.add(value)
                continue
            kept = known if known is not None and len(known) == len(dims) else (None,) * len(dims)
            # an unknown dimension keeps the fresh symbol that it has
            shape = tuple(dim if dim is not None else old for dim, old in zip(dims, kept, strict=True))
            if None in shape or shape != known:
                ctx.shapes[value] = tuple(ctx.fresh() if dim is None else dim for dim in shape)
                self.changed.add(value)

    def _initializers(self, ctx: Context, values: Iterable[ir.Value]) -> None:
        for value in values:
            tensor = value.const_value
            if tensor is None or value.is_graph_input():
                continue
            shape, content = tensor_shape(tensor), tensor_content(tensor)
            if (ctx.shapes.get(value), ctx.contents.get(value)) == (shape, content):
                continue
            self.changed.add(value)
            ctx.shapes[value] = shape
            ctx.contents.pop(value, None)
            if content is not None:
                ctx.contents[value] = content


def _signature(node: ir.Node) -> Signature | None:
    """What the rules look at beside facts; None for a node that holds graphs, whose inside may have changed."""
    attributes = tuple(node.attributes.values())
    if any(attribute.type in _BODIES for attribute in attributes):
        return None
    return (*node.inputs, None, *attributes)


def _same(before: Signature, now: Signature) -> bool:
    return len(before) == len(now) and all(a is b for a, b in zip(before, now, strict=True))
