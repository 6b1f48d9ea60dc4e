"""The sweep visits every node once in topological order, subgraphs and function bodies on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from ...symbolic.dims import Dim
from .context import Context, IntRule, OpKey, ShapeRule
from .declared import declared_dims, is_fresh, tensor_content, tensor_shape
from .facts import Facts, IntTensor, Shape, Trust
from .tables import CONTENTS, SHAPES

MAX_DEPTH = 32  # nested functions and subgraphs: inputs are hostile
MALFORMED = (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError, RecursionError)

Result = tuple[tuple[Shape | None, ...], tuple[IntTensor | None, ...]]


def propagate(model: ir.Model, *, binding: Mapping[str, int] | None = None, trust: Trust = Trust.VALUE_INFOS) -> Facts:
    """Finds the symbolic shape of every value and the content of small integer tensors, in one sweep.

    ``binding`` replaces symbols by integers at the graph inputs. ``trust`` says whether declared shapes of inner values
    refine what could not be derived; contradictions of two integers are recorded in ``clashes``, never raised.
    The graph must be in topological order, as ONNX demands; functions are swept at each call, inner values not kept.
    """
    return Sweep(model, dict(binding or {}), trust).run()


@dataclass(slots=True)
class Sweep:
    """One sweep over one model: what is known so far, and the rules that add to it."""

    model: ir.Model
    binding: Mapping[str, Dim]
    trust: Trust
    facts: Facts = field(default_factory=Facts)
    counter: list[int] = field(default_factory=lambda: [0])
    calls: dict[object, Result] = field(default_factory=dict[object, Result])
    shapes: dict[int, tuple[Dim | None, ...]] = field(default_factory=dict[int, Any])
    depth: int = 0

    def run(self) -> Facts:
        """Sweeps the main graph and all inside it; returns the facts."""
        ctx = Context(self.facts, self.graph, counter=self.counter)
        for value in self.model.graph.inputs:
            dims = declared_dims(value, self.binding)
            if dims is not None:
                self.facts.shapes[value] = tuple(ctx.fresh() if dim is None else dim for dim in dims)
        self.graph(ctx, self.model.graph)
        return self.facts

    def graph(self, ctx: Context, graph: ir.Graph) -> None:
        """Sweeps a graph whose inputs are known already."""
        if self.depth >= MAX_DEPTH:
            return
        self.depth += 1
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None or value.is_graph_input():
                continue
            ctx.shapes[value] = tensor_shape(tensor)
            content = tensor_content(tensor)
            if content is not None:
                ctx.contents[value] = content
        self.nodes(ctx, graph)
        self.depth -= 1

    def nodes(self, ctx: Context, nodes: ir.Graph | ir.Function) -> None:
        """Sweeps nodes in their order."""
        for node in nodes:
            self.visit(ctx, node)

    def visit(self, ctx: Context, node: ir.Node) -> None:
        """Sweeps one node, or what it calls."""
        functions = self.model.functions
        if functions and node.op_identifier() in functions:
            self.call(ctx, node, functions[node.op_identifier()])
            return
        key = (node.domain, node.op_type)
        try:
            self.node(ctx, node, key, SHAPES.get(key))
        except MALFORMED:
            self.settle(ctx, node, ())

    def node(self, ctx: Context, node: ir.Node, key: OpKey, shape_rule: ShapeRule | None) -> None:
        """Applies the rules of one node: content first, then shape."""
        content_rule: IntRule | None = CONTENTS.get(key)
        if content_rule is not None:
            contents = content_rule(ctx, node)
            if contents and all(contents):
                self.keep(ctx, node, contents)
                return
        self.settle(ctx, node, shape_rule(ctx, node) if shape_rule is not None else ())

    def keep(self, ctx: Context, node: ir.Node, contents: Sequence[IntTensor | None]) -> None:
        """Contents bring their shapes with them."""
        for value, content in zip(node.outputs, contents, strict=False):
            if content is not None:
                ctx.contents[value] = content
                ctx.shapes[value] = content.shape

    def settle(self, ctx: Context, node: ir.Node, shapes: Sequence[Shape | None]) -> None:
        """Keeps the inferred shapes, refined by the declared ones where those are trusted."""
        for index, value in enumerate(node.outputs):
            shape = shapes[index] if index < len(shapes) else None
            if self.trust is Trust.VALUE_INFOS and value.shape is not None:
                shape = self.refine(ctx, node, value, shape)
            if shape is not None:
                ctx.shapes[value] = shape

    def refine(self, ctx: Context, node: ir.Node, value: ir.Value, shape: Shape | None) -> Shape | None:
        """What a rule found and what was declared, put together."""
        declared = self.declared(value)
        if declared is None or declared == shape:
            return shape
        if shape is None:
            return tuple(ctx.fresh() if dim is None else dim for dim in declared)
        if len(shape) != len(declared):
            ctx.clash(node, value, declared, shape)
            return shape
        return tuple(
            self.dim(ctx, node, value, found, said) if said is not None and said != found else found
            for found, said in zip(shape, declared, strict=True)
        )

    def declared(self, value: ir.Value) -> tuple[Dim | None, ...] | None:
        """What a value declares; a frozen shape, which a reader gives to many values, is read once."""
        shape = value.shape
        if shape is None or not shape.frozen:
            return declared_dims(value, self.binding)
        found = self.shapes.get(id(shape))
        if found is None:
            found = self.shapes[id(shape)] = tuple(declared_dims(value, self.binding) or ())
        return found

    def dim(self, ctx: Context, node: ir.Node, value: ir.Value, found: Dim, said: Dim) -> Dim:
        """One dimension of both; two different numbers are a clash."""
        if isinstance(found, int):
            if isinstance(said, int):
                ctx.clash(node, value, said, found)
            return found
        return said if is_fresh(found) else found

    def call(self, ctx: Context, node: ir.Node, function: ir.Function) -> None:
        """Sweeps a function body with the facts of one call; the same facts are swept once."""
        if self.depth >= MAX_DEPTH:
            return self.settle(ctx, node, ())
        key = self.call_key(ctx, node)
        result = None if key is None else self.calls.get(key)
        if result is None:
            self.depth += 1
            result = self.body(ctx, node, function)
            self.depth -= 1
            fresh = any(is_fresh(dim) for shape in result[0] for dim in shape or ())
            if key is not None and not fresh:  # a fresh symbol belongs to this call alone
                self.calls[key] = result
        self.settle(ctx, node, result[0])
        self.keep(ctx, node, result[1])
        return None

    def call_key(self, ctx: Context, node: ir.Node) -> object:
        """What decides the result of a call; None where an attribute is a tensor or a graph."""
        attributes = tuple((name, ctx.attr(node, name)) for name in node.attributes.data)
        if not all(isinstance(value, int | float | str | tuple | list) for _, value in attributes):
            return None
        facts = [None if v is None else (ctx.shapes.get(v), ctx.contents.get(v)) for v in node.inputs]
        return node.op_identifier(), tuple(facts), repr(attributes)

    def body(self, ctx: Context, node: ir.Node, function: ir.Function) -> Result:
        """The shapes and contents that the body gives for this call."""
        given = {name: attr for name, attr in function.attributes.items() if attr.value is not None}
        for name, attr in node.attributes.items():
            resolved = ctx.call.get(attr.ref_attr_name) if attr.ref_attr_name is not None else attr
            if resolved is not None:
                given[name] = resolved
        inner = Context(Facts(), self.graph, given, self.counter)
        inner.facts.clashes = ctx.facts.clashes
        for formal, actual in zip(function.inputs, node.inputs, strict=False):
            if actual is None:
                continue
            if actual in ctx.shapes:
                inner.shapes[formal] = ctx.shapes[actual]
            if actual in ctx.contents:
                inner.contents[formal] = ctx.contents[actual]
        trust, self.trust = self.trust, Trust.INPUTS  # symbols of a body mean nothing outside
        self.nodes(inner, function)
        self.trust = trust
        outputs = function.outputs
        return tuple(inner.shapes.get(v) for v in outputs), tuple(inner.contents.get(v) for v in outputs)
