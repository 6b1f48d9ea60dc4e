"""Makes a graph runnable that uses INT32_MAX as "no index": 0 where it is read from, -1 where it is written to."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ...ir.core.scopes import all_nodes, scopes
from ...ir.rewrite.no_index import REPLACEMENT, make_indices_portable, uses_no_index
from .query_norms import spell_out_norms, with_norms


@dataclass(frozen=True)
class Oracle:
    """A graph that onnxruntime can run in the original's place, and the sentences that say what differs."""

    model: ir.Model
    notes: tuple[str, ...] = ()


def legalized(model: ir.Model) -> Oracle:
    """The graph itself where nothing uses INT32_MAX as an index, else a changed copy.

    An index 0 reads a row that the graph masks anyway; an index -1 writes the last row, which nothing reads as long as
    the cache is longer than the longest row of positions. Raises PassRefused where one use reaches both a gather and a
    scatter.
    """
    if not uses_no_index(model) and not _copied_weights(model) and not with_norms(all_nodes(model)):
        return Oracle(model)
    copy = model.clone()
    normed = spell_out_norms(copy)
    for node, weight in _copied_weights(copy):
        node.outputs[0].replace_all_uses_with(weight)
    counts = make_indices_portable(copy, "legalize")
    notes = tuple(
        f"onnxruntime ran a copy in which INT32_MAX is {REPLACEMENT[kind]} at {count} {kind} indices"
        for kind, count in counts.items()
        if count
    )
    if normed:
        notes += (f"onnxruntime ran a copy in which the norms inside {normed} attentions stand before them",)
    return Oracle(copy, notes)


def _copied_weights(model: ir.Model) -> list[tuple[ir.Node, ir.Value]]:
    """Every Identity of a weight: behind one a runtime takes the weight for computed, and sums in another order."""
    copies = ((node, node.inputs[0]) for scope in scopes(model) for node in scope if _is_identity(node))
    return [(node, weight) for node, weight in copies if weight is not None and weight.is_initializer()]


def _is_identity(node: ir.Node) -> bool:
    used = node.op_type == "Identity" and not node.domain and bool(node.outputs[0].uses())
    return used and not node.outputs[0].is_graph_output()
