"""Without states, layers are found by the operators that carry content from one token to another."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ...core.constants import constant_of
from ...core.operators import names
from ...core.scopes import holders

PRODUCTS = names(lambda row: row.product and row.product.pairs, None)  # attention spelled out
FUSED = names(lambda row: row.mixes_tokens, None)


def mixing_nodes(graph: ir.Graph, source: ir.Value, known: Mapping[ir.Value, ir.DataType]) -> list[ir.Node]:
    """The operators of the main graph that mix tokens, in graph order.

    Both operands of a product must come from the source as floats: experts' weights that an index picks do not, and
    neither do the keys of an encoder's text.
    """
    carried = _carried(graph, source, known)
    return [node for node in graph if _mixes(node, carried)]


def _carried(graph: ir.Graph, source: ir.Value, known: Mapping[ir.Value, ir.DataType]) -> set[ir.Value]:
    """What the source reaches through floats alone; sizes and indices carry no content of tokens."""
    outer, seen, work = holders(graph), {source}, [source]
    while work:
        for use in work.pop().uses():
            outputs = outer.get(use.node, use.node).outputs
            new = [v for v in outputs if v not in seen and known.get(v, ir.DataType.FLOAT).is_floating_point()]
            seen.update(new)
            work.extend(new)
    return seen


def _mixes(node: ir.Node, carried: set[ir.Value]) -> bool:
    operands = [value for value in node.inputs[:2] if value is not None]
    if node.op_type in PRODUCTS:
        return len(operands) == 2 and carried.issuperset(operands)
    known = all(value in carried or constant_of(value) is not None for value in operands)
    return node.op_type in FUSED and known and not carried.isdisjoint(operands)
