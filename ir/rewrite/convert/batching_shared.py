"""How operators take a value whose first axis, of 1, has become the batch: it stays first."""

from __future__ import annotations

import onnx_ir as ir

from ...states.trace import axes_of
from .batching import Lifting, Rule
from .batching_rules import ELEMENTWISE, elementwise


def _elementwise(lifting: Lifting, node: ir.Node) -> ir.Value | None:
    """Operands of fewer axes get theirs behind the batch; the result's first axis has to be free or the batch's."""
    result = lifting.shape(node, node.outputs[0])
    operands = [v for v in node.inputs if v in lifting.batched]
    if all(len(lifting.shape(node, v)) == len(result) for v in operands):
        return None
    if result[0] not in (1, lifting.context.batch):
        raise lifting.unknown(node)
    return elementwise(lifting, node)


def _unsqueeze(lifting: Lifting, node: ir.Node) -> ir.Value | None:
    """A new first axis stands behind the batch, which stays first."""
    axes, source, result = axes_of(node), node.inputs[0], node.outputs[0]
    rank = len(lifting.shape(node, result))
    places = {axis % rank for axis in axes or ()}
    if 0 not in places or source is None:
        return None
    landed = next(axis for axis in range(rank) if axis not in places)
    kept = sorted(places - {0} | {landed})
    operands = [source, lifting.context.builder.axes(kept)]
    lifting.settle(node, lifting.copy(node, operands))
    return None


def _squeeze(lifting: Lifting, node: ir.Node) -> ir.Value | None:
    """Without the axis that the batch had taken the value is lifted again."""
    source, axes = node.inputs[0], axes_of(node)
    if source is None or axes is None:
        raise lifting.unknown(node)
    rank = len(lifting.shape(node, source))
    places = sorted(axis % rank for axis in axes)
    if 0 not in places:
        return None
    kept = [axis for axis in places if axis]
    if not kept:
        return source
    return lifting.copy(node, [source, lifting.context.builder.axes(kept)])


def _reshape(lifting: Lifting, node: ir.Node) -> ir.Value | None:
    """A leading 1 of the target is the batch."""
    target = lifting.context.facts.ints(node.inputs[1]) if node.inputs[1] is not None else None
    if target is None or 0 in target.items or len(target.items) < 2 or target.items[0] != 1:
        return None  # the proof tells whether it holds
    shape = lifting.measure(node, [lifting.context.batch, *(lifting.context.wanted(i) for i in target.items[1:])])
    lifting.settle(node, lifting.copy(node, [node.inputs[0], shape]))
    return None


def _tile(lifting: Lifting, node: ir.Node) -> ir.Value | None:
    """A repetition over the batch of what has the batch now is that itself."""
    source, result = node.inputs[0], node.outputs[0]
    assert source is not None
    if lifting.shape(node, result) == (lifting.context.batch, *lifting.shape(node, source)[1:]):
        result.replace_all_uses_with(source)
    return None


def _transpose(lifting: Lifting, node: ir.Node) -> ir.Value | None:
    """The batch stays first, or the transposition is not understood."""
    perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else (None,)
    if perm[0] != 0:
        raise lifting.unknown(node)
    return None


BATCHED: dict[str, Rule] = {
    **dict.fromkeys((*ELEMENTWISE, "Expand"), _elementwise),
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Tile": _tile,
    "Transpose": _transpose,
}
"""What becomes of a value whose first axis, of 1, is the batch now; other operators work on it as they are."""
