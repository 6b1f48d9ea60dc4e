"""Tables say what each operator does to rows: multiply by a weight, keep apart, lay out anew, select."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from ...core.constants import constant_of
from ...core.operators import OPERATORS, Key, key_of, keys

__all__ = ["key_of"]

HEADS: dict[Key, tuple[int, int]] = {
    key: (row.product.rows, row.product.weight)
    for key, row in OPERATORS.items()
    if row.product is not None and row.product.rows is not None
}
"""Operator -> its operands: the rows, and the weight."""

WHOLE_TENSOR = keys(lambda row: row.product and row.whole_scale)
"""Products that derive one scale from all rows: with fewer rows they compute something else."""

RANK_TWO = keys(lambda row: row.product and not row.product.any_rank)
"""Products that do not take rows of any rank."""

ELEMENTWISE = keys(lambda row: row.elementwise)

QUANTIZE = keys(lambda row: row.quantizes or row.dequantizes)
"""Row by row where scale and zero point are constants."""

NORMS = keys(lambda row: row.by_row)
"""Row by row where their axis is the last."""

REDUCTIONS = keys(lambda row: row.reduces)

LAYOUT = keys(lambda row: row.keeps_all and not row.repeats)

SELECTIONS = keys(lambda row: row.moves and not row.keeps_all) - {("", "Split")}
"""Rows that are chosen; the parts of a Split are rows of several results."""

_DERIVES = LAYOUT | keys(lambda row: row.dequantizes)
_DEPTH = 8


def is_constant(value: ir.Value | None, formals: Collection[ir.Value] = (), depth: int = _DEPTH) -> bool:
    """True where only constants (or ``formals``) and changes of layout or type make the value."""
    if value is None or value in formals or constant_of(value) is not None:
        return True
    node = value.producer()
    if node is None or key_of(node) not in _DERIVES or depth == 0:
        return False
    return all(is_constant(given, formals, depth - 1) for given in node.inputs)


def last_axis(node: ir.Node, rank: int) -> bool:
    """True where the operator works along the last axis of a value of this rank."""
    attribute = node.attributes.get("axis")
    return attribute is None or attribute.as_int() in (-1, rank - 1)


def data_ports(node: ir.Node) -> range:
    """The operands that carry rows: the first one alone where the others are shapes, axes, indices or constants."""
    key = key_of(node)
    return range(1) if key not in ELEMENTWISE else range(len(node.inputs))
