"""Batching rules say how each operator takes operands with one more, leading batch axis (as in JAX's vmap)."""

from __future__ import annotations

import onnx_ir as ir

from ...core.operators import names
from ...states.trace import axes_of, constant_ints
from .batching import Batching, Rule


def elementwise(batching: Batching, node: ir.Node) -> ir.Value | None:
    """Done where the result's first axis is free or the batch's; else the result is batched too."""
    result = batching.shape(node, node.outputs[0])
    rank, places = len(result), batching.operands(node)
    first = batching.batch_first
    places += [i for i, v in enumerate(node.inputs) if v in first and len(batching.shape(node, v)) < rank]
    shapes = [batching.shape(node, node.inputs[index]) for index in places]
    if rank > 0 and result[0] in (1, batching.context.batch) and all(len(s) < rank or s[0] == 1 for s in shapes):
        for index in places:
            value = node.inputs[index]
            assert value is not None
            form = batching.spread(node, value, rank)
            batching.context.builder.place_before(node)
            node.replace_input_with(index, form)
        if result[0] == 1:
            batching.batch_first.add(node.outputs[0])
        return None
    return batching.copy(
        node, [batching.spread(node, v, rank + 1) if v in batching.forms else v for v in node.inputs if v is not None]
    )


def _unsqueeze(batching: Batching, node: ir.Node) -> ir.Value | None:
    """A new first axis is the batch's; other new axes move one place."""
    axes, value = axes_of(node), node.inputs[0]
    if axes is None or value is None:
        raise batching.unknown(node)
    rank = len(batching.shape(node, node.outputs[0]))
    places = sorted(axis % rank for axis in axes)
    settled = 0 in places
    places = [axis for axis in places if axis] if settled else [axis + 1 for axis in places]
    form = batching.forms[value]
    if places:
        form = batching.copy(node, [form, batching.context.builder.axes(places)])
    if not settled:
        return form
    batching.settle(node, form)
    return None


def _gather(batching: Batching, node: ir.Node) -> ir.Value | None:
    """Rows of a table looked up by batched numbers are batched rows."""
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    if batching.operands(node) != [1] or axis != 0 or node.inputs[1] is None:
        raise batching.unknown(node)
    return batching.copy(node, [node.inputs[0], batching.forms[node.inputs[1]]])


def _reshape(batching: Batching, node: ir.Node) -> ir.Value | None:
    """The target gets the batch in front, in the place of a leading 1 where there is one."""
    target = batching.context.facts.ints(node.inputs[1]) if node.inputs[1] is not None else None
    if target is None or 0 in target.items or batching.operands(node) != [0] or node.inputs[0] is None:
        raise batching.unknown(node)
    items = [batching.context.wanted(item) for item in target.items]
    settled = len(items) > 1 and items[0] == 1
    shape = batching.measure(node, [batching.context.batch, *(items[1:] if settled else items)])
    form = batching.copy(node, [batching.forms[node.inputs[0]], shape])
    if not settled:
        return form
    batching.settle(node, form)
    return None


def _expand(batching: Batching, node: ir.Node) -> ir.Value | None:
    """As element by element; a result that is batched is expanded over the batch as well."""
    target = batching.context.facts.ints(node.inputs[1]) if node.inputs[1] is not None else None
    if target is None or batching.operands(node) != [0] or node.inputs[0] is None:
        raise batching.unknown(node)
    result, own = batching.shape(node, node.outputs[0]), batching.shape(node, node.inputs[0])
    if result[0] in (1, batching.context.batch) and (len(own) < len(result) or own[0] == 1):
        return elementwise(batching, node)
    shape = batching.measure(node, [batching.context.batch, *(batching.context.wanted(item) for item in target.items)])
    return batching.copy(node, [batching.spread(node, node.inputs[0], len(result) + 1), shape])


def _slice(batching: Batching, node: ir.Node) -> ir.Value | None:
    """The axes one place on."""
    axes = constant_ints(node.inputs[3]) if len(node.inputs) > 3 else None
    if axes is None or batching.operands(node) != [0] or node.inputs[0] is None:
        raise batching.unknown(node)
    moved = [axis + 1 if axis >= 0 else axis for axis in axes]
    named = batching.context.builder.axes(moved)
    return batching.copy(node, [batching.forms[node.inputs[0]], *node.inputs[1:3], named, *node.inputs[4:]])


def _transpose(batching: Batching, node: ir.Node) -> ir.Value | None:
    """The batch stays in front."""
    assert node.inputs[0] is not None
    rank = len(batching.shape(node, node.inputs[0]))
    perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else list(reversed(range(rank)))
    return batching.copy(node, [batching.forms[node.inputs[0]]], {"perm": [0, *(axis + 1 for axis in perm)]})


def _concat(batching: Batching, node: ir.Node) -> ir.Value | None:
    """All operands batched, the axis one place on."""
    axis = node.attributes["axis"].as_int()
    if len(batching.operands(node)) != len(node.inputs):
        raise batching.unknown(node)
    forms = [batching.forms[value] for value in node.inputs if value is not None]
    return batching.copy(node, forms, {"axis": axis + 1 if axis >= 0 else axis})


ELEMENTWISE = names(lambda row: row.elementwise) | {"MatMul"}  # whose batch stands in front as well
BATCHED: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, elementwise),
    "Unsqueeze": _unsqueeze,
    "Gather": _gather,
    "Reshape": _reshape,
    "Expand": _expand,
    "Slice": _slice,
    "Transpose": _transpose,
    "Concat": _concat,
}
