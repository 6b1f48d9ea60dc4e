"""How each operator takes operands with a batch axis more; its result is lifted too, or lifting is over there."""

from __future__ import annotations

import onnx_ir as ir

from ...states.trace import axes_of, constant_ints
from .batching import Lifting, Rule


def elementwise(lifting: Lifting, node: ir.Node) -> ir.Value | None:
    """Done where the result's first axis is free or the batch's; else the result is lifted too."""
    result = lifting.shape(node, node.outputs[0])
    rank, places = len(result), lifting.operands(node)
    places += [i for i, v in enumerate(node.inputs) if v in lifting.batched and len(lifting.shape(node, v)) < rank]
    shapes = [lifting.shape(node, node.inputs[index]) for index in places]
    if rank > 0 and result[0] in (1, lifting.context.batch) and all(len(s) < rank or s[0] == 1 for s in shapes):
        for index in places:
            value = node.inputs[index]
            assert value is not None
            form = lifting.spread(node, value, rank)
            lifting.context.builder.place_before(node)
            node.replace_input_with(index, form)
        if result[0] == 1:
            lifting.batched.add(node.outputs[0])
        return None
    return lifting.copy(
        node, [lifting.spread(node, v, rank + 1) if v in lifting.forms else v for v in node.inputs if v is not None]
    )


def _unsqueeze(lifting: Lifting, node: ir.Node) -> ir.Value | None:
    """A new first axis is the batch's; other new axes move one place."""
    axes, value = axes_of(node), node.inputs[0]
    if axes is None or value is None:
        raise lifting.unknown(node)
    rank = len(lifting.shape(node, node.outputs[0]))
    places = sorted(axis % rank for axis in axes)
    settled = 0 in places
    places = [axis for axis in places if axis] if settled else [axis + 1 for axis in places]
    form = lifting.forms[value]
    if places:
        form = lifting.copy(node, [form, lifting.context.builder.axes(places)])
    if not settled:
        return form
    lifting.settle(node, form)
    return None


def _gather(lifting: Lifting, node: ir.Node) -> ir.Value | None:
    """Rows of a table looked up by lifted numbers are lifted rows."""
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    if lifting.operands(node) != [1] or axis != 0 or node.inputs[1] is None:
        raise lifting.unknown(node)
    return lifting.copy(node, [node.inputs[0], lifting.forms[node.inputs[1]]])


def _reshape(lifting: Lifting, node: ir.Node) -> ir.Value | None:
    """The target gets the batch in front, in the place of a leading 1 where there is one."""
    target = lifting.context.facts.ints(node.inputs[1]) if node.inputs[1] is not None else None
    if target is None or 0 in target.items or lifting.operands(node) != [0] or node.inputs[0] is None:
        raise lifting.unknown(node)
    items = [lifting.context.wanted(item) for item in target.items]
    settled = len(items) > 1 and items[0] == 1
    shape = lifting.measure(node, [lifting.context.batch, *(items[1:] if settled else items)])
    form = lifting.copy(node, [lifting.forms[node.inputs[0]], shape])
    if not settled:
        return form
    lifting.settle(node, form)
    return None


def _expand(lifting: Lifting, node: ir.Node) -> ir.Value | None:
    """As element by element; a result that is lifted is expanded over the batch as well."""
    target = lifting.context.facts.ints(node.inputs[1]) if node.inputs[1] is not None else None
    if target is None or lifting.operands(node) != [0] or node.inputs[0] is None:
        raise lifting.unknown(node)
    result, own = lifting.shape(node, node.outputs[0]), lifting.shape(node, node.inputs[0])
    if result[0] in (1, lifting.context.batch) and (len(own) < len(result) or own[0] == 1):
        return elementwise(lifting, node)
    shape = lifting.measure(node, [lifting.context.batch, *(lifting.context.wanted(item) for item in target.items)])
    return lifting.copy(node, [lifting.spread(node, node.inputs[0], len(result) + 1), shape])


def _slice(lifting: Lifting, node: ir.Node) -> ir.Value | None:
    """The axes one place on."""
    axes = constant_ints(node.inputs[3]) if len(node.inputs) > 3 else None
    if axes is None or lifting.operands(node) != [0] or node.inputs[0] is None:
        raise lifting.unknown(node)
    moved = [axis + 1 if axis >= 0 else axis for axis in axes]
    named = lifting.context.builder.axes(moved)
    return lifting.copy(node, [lifting.forms[node.inputs[0]], *node.inputs[1:3], named, *node.inputs[4:]])


def _transpose(lifting: Lifting, node: ir.Node) -> ir.Value | None:
    """The batch stays in front."""
    assert node.inputs[0] is not None
    rank = len(lifting.shape(node, node.inputs[0]))
    perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else list(reversed(range(rank)))
    return lifting.copy(node, [lifting.forms[node.inputs[0]]], {"perm": [0, *(axis + 1 for axis in perm)]})


def _concat(lifting: Lifting, node: ir.Node) -> ir.Value | None:
    """All operands lifted, the axis one place on."""
    axis = node.attributes["axis"].as_int()
    if len(lifting.operands(node)) != len(node.inputs):
        raise lifting.unknown(node)
    forms = [lifting.forms[value] for value in node.inputs if value is not None]
    return lifting.copy(node, forms, {"axis": axis + 1 if axis >= 0 else axis})


ELEMENTWISE = (
    "Add Sub Mul Div Mod Min Max Pow Equal Less LessOrEqual Greater GreaterOrEqual And Or Xor Where "
    "Not Neg Abs Cast Identity Cos Sin Exp Log Sqrt Floor Ceil Sign Clip MatMul"
).split()
LIFTED: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, elementwise),
    "Unsqueeze": _unsqueeze,
    "Gather": _gather,
    "Reshape": _reshape,
    "Expand": _expand,
    "Slice": _slice,
    "Transpose": _transpose,
    "Concat": _concat,
}
