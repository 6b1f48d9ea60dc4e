"""An If whose condition is known gives way to the branch taken, inlined into the graph around it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir

from ...core.scopes import nested
from ...shapes.infer import Facts, Trust, propagate
from ..recorder import Recorder
from .apply import unused_name
from .scope import OWNER


def inline_branches(model: ir.Model) -> int:
    """Inlines the taken branch of every If that is decided before the run, outer ones first; returns how many."""
    return inline_decided(model, propagate(model, trust=Trust.INPUTS))


def inline_decided(model: ir.Model, facts: Facts) -> int:
    """Inlines the taken branch of every If that ``facts`` decide, outer ones first; returns how many."""
    decided: list[tuple[ir.Node, bool]] = []
    for graph in nested(model.graph):
        for node in graph:
            if node.op_type == "If" and not node.domain and node.graph is not None:
                condition = node.inputs[0]
                content = None if condition is None else facts.contents.get(condition)
                if content is not None and content.concrete and len(content.items) == 1:
                    decided.append((node, bool(content.items[0])))
    if decided:
        names = Counter(name for graph in nested(model.graph) for name in _names(graph))
        for node, truth in decided:
            _inline(node, truth, names)
    return len(decided)


def _names(graph: ir.Graph | ir.Function) -> Iterator[str]:
    """The names that a graph gives to values, its subgraphs not counted."""
    for node in graph:
        yield from (value.name for value in node.outputs if value.name)
    yield from (value.name for value in graph.inputs if value.name)
    if isinstance(graph, ir.Graph):
        yield from graph.initializers


def _inline(node: ir.Node, truth: bool, names: Counter[str]) -> None:
    outer = node.graph
    if outer is None:
        return
    branch = node.attributes["then_branch" if truth else "else_branch"].as_graph()
    other = node.attributes["else_branch" if truth else "then_branch"].as_graph()
    for inner in other.all_nodes():
        for place in range(len(inner.inputs)):
            inner.replace_input_with(place, None)
    names.subtract(name for graph in nested(other) for name in _names(graph))
    results = list(branch.outputs)
    branch.outputs.clear()
    _rename_clashes(branch, names)
    for name in list(branch.initializers):
        outer.initializers.add(branch.initializers.pop(name))
    for inner in list(branch):
        branch.remove(inner)
        outer.insert_before(node, inner)
    for output, result in zip(node.outputs, results, strict=True):
        _hand_over(outer, node, output, result)
    outer.remove(node, safe=True)


def _rename_clashes(branch: ir.Graph, names: Counter[str]) -> None:
    """Values of a branch may bear names that other scopes use too; there the branch's give way."""
    values = [*branch.initializers.values(), *(value for node in branch for value in node.outputs)]
    for value in values:
        name = value.name
        if name and names[name] > 1:
            value.name = unused_name(names, f"{name}_taken")
            names[name] -= 1
            names[value.name] += 1


def _hand_over(outer: ir.Graph, node: ir.Node, output: ir.Value, result: ir.Value) -> None:
    """Uses of the If's output read the branch's; a graph output keeps its name, through an Identity where it must."""
    name = output.name
    if not output.is_graph_output():
        output.replace_all_uses_with(result)
        return
    producer = result.producer()
    if producer is None or producer.graph is not outer or result.is_graph_output():  # not its own to be renamed
        builder = Recorder(outer, OWNER)
        result = builder.ops("Identity", [result], f"{node.name}_{name}", 1, exact=True)[0]
        builder.place_before(node)
    result.name, result.shape, result.type = name, output.shape, output.type
    output.replace_all_uses_with(result, replace_graph_outputs=True)
