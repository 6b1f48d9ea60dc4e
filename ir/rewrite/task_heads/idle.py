"""What only served an output that is gone goes with it, its weights too."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from ...core.scopes import remove_dead


def drop_outputs(graph: ir.Graph, gone: Iterable[ir.Value]) -> None:
    """Removes the nodes behind values that are no outputs any more, as far as nothing else needs them."""
    drop_nodes(graph, [node for value in gone if (node := value.producer()) is not None])


def drop_nodes(graph: ir.Graph, roots: Iterable[ir.Node]) -> None:
    """Removes nodes that nothing uses, all that only served them, and weights that were read until now."""
    used = [value for value in graph.initializers.values() if value.uses()]
    remove_dead(roots)
    for value in used:
        if not value.uses() and not value.is_graph_output() and value.name is not None and not value.is_graph_input():
            del graph.initializers[value.name]
