"""Attention masks of an encoder are those that reach cross-attention's scores and no others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from ..core.constants import constant_of
from ..core.operators import names
from ..core.operators.walks import ENCODER_TO_KEYS, SCORES_END, SIZE_LISTS, SIZES
from ..states.attention import path_to_softmax, products
from ..states.base import Layout, State

MAX_VISITS = 20000
_MASKS_END = SIZES | names(lambda row: row.product)
"""No mask goes through these: a product is an answer of the attention, a size no mask."""


def encoder_masks(states: Sequence[State], masks: Iterable[ir.Value], features: Iterable[ir.Value]) -> set[ir.Value]:
    """Those of ``masks`` that only mask keys which are fixed states, or projected from the inputs ``features``."""
    crossing = {id(node) for value in _keys(states, features) for node in _scores(value)}
    if not crossing:
        return set()
    return {mask for mask in masks if _meets(mask, crossing) == {True}}


def _keys(states: Sequence[State], features: Iterable[ir.Value]) -> list[ir.Value]:
    fixed = [state.input for state in states if state.layout is Layout.FIXED and state.input is not None]
    return [*fixed, *(value for source in features for value in _projected(source))]


def _projected(source: ir.Value) -> list[ir.Value]:
    """The input itself and what is computed from it and constants alone, up to where it meets other values."""
    found, seen = [source], {source}
    for value in found:
        for node, _ in value.uses():
            others = [v for v in node.inputs if v is not None and v not in seen]
            if node.op_type in ENCODER_TO_KEYS and all(_is_known(v) for v in others) and len(found) < MAX_VISITS:
                found.extend(output for output in node.outputs if output not in seen)
                seen.update(node.outputs)
    return found


def _is_known(value: ir.Value) -> bool:
    """True for constants, and for small integers: shapes that a Reshape takes."""
    return constant_of(value) is not None or (value.dtype is not None and value.dtype.is_integer()) or _is_shape(value)


def _is_shape(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type in SIZE_LISTS


def _scores(key: ir.Value) -> list[ir.Node]:
    """The nodes from the product with ``key`` to its softmax, or the operator that does it all."""
    found: list[ir.Node] = []
    for node, role in products(key):
        if role == "key":
            found += [node, *path_to_softmax(node)]
    return found


def _meets(mask: ir.Value, crossing: set[int]) -> set[bool]:
    """Whether the attentions that ``mask`` reaches are crossing ones."""
    met: set[bool] = set()
    work, seen = [mask], {mask}
    while work and len(seen) < MAX_VISITS:
        for node, _ in work.pop().uses():
            if id(node) in crossing or node.op_type in SCORES_END:
                met.add(id(node) in crossing)
            elif node.op_type not in _MASKS_END:
                work.extend(output for output in node.outputs if output not in seen)
                seen.update(node.outputs)
    return met
