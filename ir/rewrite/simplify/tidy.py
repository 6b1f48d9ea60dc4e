"""Initializers, functions and opset imports that nothing refers to any more are removed."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir


def tidy(model: ir.Model, graphs: Sequence[ir.Graph]) -> int:
    """Drops unused initializers of ``graphs``, unused functions and opset imports; returns how many went.

    ``graphs`` are the main graph and all inside it. The default of a graph input stays, used or not.
    """
    return sum(map(_initializers, graphs)) + _functions(model, graphs) + _opsets(model, graphs)


def _initializers(graph: ir.Graph) -> int:
    unused = [name for name, value in graph.initializers.items() if not _needed(value)]
    for name in unused:
        del graph.initializers[name]
    return len(unused)


def _needed(value: ir.Value) -> bool:
    return value.is_graph_input() or value.is_graph_output() or bool(value.uses())


def _functions(model: ir.Model, graphs: Sequence[ir.Graph]) -> int:
    """Functions that no live call reaches."""
    reached: set[ir.OperatorIdentifier] = set()
    work: list[ir.Node] = [node for graph in graphs for node in graph] if model.functions else []
    while work:
        name = work.pop().op_identifier()
        if name in model.functions and name not in reached:
            reached.add(name)
            work.extend(model.functions[name].all_nodes())
    unused = [name for name in model.functions if name not in reached]
    for name in unused:
        del model.functions[name]
    return len(unused)


def _opsets(model: ir.Model, graphs: Sequence[ir.Graph]) -> int:
    """Imports of domains that no node names; the default domain stays."""
    domains = {node.domain for graph in graphs for node in graph} | {""}
    for function in model.functions.values():
        domains.add(function.domain)
        domains.update(node.domain for node in function.all_nodes())
    unused = [domain for domain in model.opset_imports if domain not in domains]
    for domain in unused:
        del model.opset_imports[domain]
    return len(unused)
