"""Rings are caches written at a remainder; masks compare with the sizes of windows: both are found here."""

from __future__ import annotations

import onnx_ir as ir

from ..core.constants import constant_of
from ..core.operators.walks import IN_ORDER, MASK_TO_SOFTMAX, ORDERS, SCORES_END, SHIFTED
from ..core.scopes import all_nodes

MAX_STEPS = 200


def writes_ring(positions: ir.Value | None) -> bool:
    """True where the rows are written at a remainder: the cache is a ring."""
    work, seen = [positions], set[ir.Value]()
    while work and len(seen) < MAX_STEPS:
        value = work.pop()
        if value is None or value in seen:
            continue
        seen.add(value)
        node = value.producer()
        if node is None or node.op_type == "Shape":
            continue
        if node.op_type == "Mod" and not node.domain:
            return True
        work.extend(node.inputs)
    return False


def window_sizes(model: ir.Model) -> tuple[int, ...]:
    """The numbers that masks compare rows or positions with, or take off before they compare."""
    found: set[int] = set()
    for node in all_nodes(model):
        if node.op_type not in ORDERS or node.domain or not _masks(node):
            continue
        for given in node.inputs:
            plain = _through_layout(given)
            maker = plain.producer() if plain is not None else None
            shifted = maker.inputs if maker is not None and maker.op_type in SHIFTED else ()
            sizes = [_single(operand) for operand in (plain, *(_through_layout(operand) for operand in shifted))]
            found |= {abs(size) for size in sizes if size is not None and abs(size) > 1}
    return tuple(sorted(found))


def _masks(node: ir.Node) -> bool:
    """True where the comparison is part of a mask: it comes to a softmax or an attention operator."""
    work, seen = [node], set[ir.Node]()
    while work and len(seen) < MAX_STEPS:
        current = work.pop()
        for use in [use for output in current.outputs for use in output.uses()]:
            if use.node.op_type in SCORES_END:
                return True
            if use.node.op_type in MASK_TO_SOFTMAX and use.node not in seen:
                seen.add(use.node)
                work.append(use.node)
    return False


def _through_layout(value: ir.Value | None) -> ir.Value | None:
    """What the value was before axes and element type changed."""
    for _ in range(MAX_STEPS):
        node = value.producer() if value is not None else None
        if node is None or node.op_type not in IN_ORDER:
            break
        value = node.inputs[0]
    return value


def _single(value: ir.Value | None) -> int | None:
    tensor = constant_of(value)
    if tensor is None or tensor.size != 1 or not tensor.dtype.is_integer():
        return None
    return int(tensor.numpy().reshape(-1)[0])
