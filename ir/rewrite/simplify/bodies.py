"""One look at every node finds the graphs inside a graph."""

from __future__ import annotations

import onnx_ir as ir

Bodies = dict[ir.Node, list[ir.Graph]]
KINDS = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})


def find_bodies(graph: ir.Graph) -> tuple[list[ir.Graph], Bodies]:
    """The graph and all graphs inside it, outer before inner, and the bodies of each control-flow node."""
    graphs = [graph]
    bodies: Bodies = {}
    for scope in graphs:  # grows while it is read
        for node in scope:
            found = [body for attr in node.attributes.data.values() if attr.type in KINDS for body in _graphs(attr)]
            if found:
                bodies[node] = found
                graphs.extend(found)
    return graphs, bodies


def _graphs(attr: ir.Attr) -> list[ir.Graph]:
    if attr.ref_attr_name is not None:
        return []
    return [attr.as_graph()] if attr.type is ir.AttributeType.GRAPH else list(attr.as_graphs())
