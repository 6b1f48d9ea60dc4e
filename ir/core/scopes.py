"""One iterator, which every pass shares, goes through the scopes of a graph and the nodes in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

Scope = ir.Graph | ir.Function
_GRAPH, _GRAPHS = ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS


def scopes(model: ir.Model) -> Iterator[Scope]:
    """The main graph, then every function; the bodies of If and Loop inside each follow it."""
    yield from nested(model.graph)
    for function in model.functions.values():
        yield from nested(function)


def nested(scope: Scope) -> Iterator[Scope]:
    """``scope`` itself, then every subgraph inside it, outer before inner."""
    work = [scope]
    while work:
        found = work.pop()
        yield found
        inside = [body for node in found if node.attributes.data for body in bodies(node)]
        if inside:
            work.extend(reversed(inside))


def bodies(node: ir.Node) -> list[ir.Graph]:
    """The subgraphs that the node itself holds, in the order of its attributes."""
    found: list[ir.Graph] = []
    for attribute in node.attributes.data.values():  # the dict itself: every node of every graph comes by here
        kind = attribute.type
        if kind is _GRAPH:
            found.append(attribute.as_graph())
        elif kind is _GRAPHS:
            found.extend(attribute.as_graphs())
    return found


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node of every scope, in each scope's own order."""
    for scope in scopes(model):
        yield from scope


def holders(graph: ir.Graph) -> dict[ir.Node, ir.Node]:
    """Each node inside a subgraph of ``graph`` by the node of ``graph`` that holds it."""
    return {
        inner: node
        for node in graph
        if node.attributes
        for body in bodies(node)
        for scope in nested(body)
        for inner in scope
    }


def remove_dead(roots: Iterable[ir.Node]) -> int:
    """Removes those of ``roots`` that nothing uses, and all that only served them; returns how many nodes went.

    A value used inside a subgraph counts as used; a graph output does too.
    """
    work = list(roots)
    removed = 0
    while work:
        node = work.pop()
        graph = node.graph
        if graph is None or any(output.is_graph_output() or output.uses() for output in node.outputs):
            continue
        work.extend(_feeders(node))
        graph.remove(node, safe=True)
        removed += 1
    return removed


def _feeders(node: ir.Node) -> list[ir.Node]:
    """The nodes that feed ``node``, those that feed its subgraphs from outside included."""
    values = [value for value in node.inputs if value is not None]
    for body in bodies(node):
        values.extend(value for scope in nested(body) for inner in scope for value in inner.inputs if value is not None)
    producers = [value.producer() for value in values]
    return [producer for producer in producers if producer is not None]
