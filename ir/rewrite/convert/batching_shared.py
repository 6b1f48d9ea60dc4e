"""Batching rules for a value whose first axis, of 1, has become the batch: it stays first."""

from __future__ import annotations

import onnx_ir as ir

from ...states.trace import axes_of
from .batching import Batching, Rule
from .batching_rules import ELEMENTWISE, elementwise


def _elementwise(batching: Batching, node: ir.Node) -> ir.Value | None:
    """Operands of fewer axes get theirs behind the batch; the result's first axis has to be free or the batch's."""
    result = batching.shape(node, node.outputs[0])
    operands = [v for v in node.inputs if v in batching.batch_first]
    if all(len(batching.shape(node, v)) == len(result) for v in operands):
        return None
    if result[0] not in (1, batching.context.batch):
        raise batching.unknown(node)
    return elementwise(batching, node)


def _unsqueeze(batching: Batching, node: ir.Node) -> ir.Value | None:
    """A new first axis stands behind the batch, which stays first."""
    axes, source, result = axes_of(node), node.inputs[0], node.outputs[0]
    rank = len(batching.shape(node, result))
    places = {axis % rank for axis in axes or ()}
    if 0 not in places or source is None:
        return None
    landed = next(axis for axis in range(rank) if axis not in places)
    kept = sorted(places - {0} | {landed})
    operands = [source, batching.context.builder.axes(kept)]
    batching.settle(node, batching.copy(node, operands))
    return None


def _squeeze(batching: Batching, node: ir.Node) -> ir.Value | None:
    """Without the axis that the batch had taken the value is batched again."""
    source, axes = node.inputs[0], axes_of(node)
    if source is None or axes is None:
        raise batching.unknown(node)
    rank = len(batching.shape(node, source))
    places = sorted(axis % rank for axis in axes)
    if 0 not in places:
        return None
    kept = [axis for axis in places if axis]
    if not kept:
        return source
    return batching.copy(node, [source, batching.context.builder.axes(kept)])


def _reshape(batching: Batching, node: ir.Node) -> ir.Value | None:
    """A leading 1 of the target is the batch."""
    target = batching.context.facts.ints(node.inputs[1]) if node.inputs[1] is not None else None
    if target is None or 0 in target.items or len(target.items) < 2 or target.items[0] != 1:
        return None  # the proof tells whether it holds
    shape = batching.measure(node, [batching.context.batch, *(batching.context.wanted(i) for i in target.items[1:])])
    batching.settle(node, batching.copy(node, [node.inputs[0], shape]))
    return None


def _tile(batching: Batching, node: ir.Node) -> ir.Value | None:
    """A repetition over the batch of what has the batch now is that itself."""
    source, result = node.inputs[0], node.outputs[0]
    assert source is not None
    if batching.shape(node, result) == (batching.context.batch, *batching.shape(node, source)[1:]):
        result.replace_all_uses_with(source)
    return None


def _transpose(batching: Batching, node: ir.Node) -> ir.Value | None:
    """The batch stays first, or the transposition is not understood."""
    perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else (None,)
    if perm[0] != 0:
        raise batching.unknown(node)
    return None


BATCH_FIRST: dict[str, Rule] = {
    **dict.fromkeys((*ELEMENTWISE, "Expand"), _elementwise),
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Tile": _tile,
    "Transpose": _transpose,
}
"""What becomes of a value whose first axis, of 1, is the batch now; other operators work on it as they are."""
