"""After a conversion no operator may count cache rows from the end, or take in rows that were never written."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from ...core.operators import names
from ...core.scopes import nested
from ...specialize.length_choices import grown_choices
from ...states.trace import axes_of, constant_ints
from ...symbolic.dims import Expr, free_symbols
from .context import ConversionContext
from .proof import depends_on_positions

FAR = 2**31 - 1


def refuse_selections(context: ConversionContext, positions: ir.Value) -> None:
    """Raises PassRefused for a node that works along past + seq rows in a way that more rows would change.

    With a fixed cache the last row is no longer the last token, and rows behind it hold nothing.
    """
    for node in context.model.graph:
        if node.outputs[0] not in context.facts.shapes:
            continue  # written by this conversion
        source = node.inputs[0] if node.inputs else None
        rule = _RULES.get(node.op_type) if not node.domain else None
        if source is None or rule is None:
            continue
        axes = _rows(context, source)
        if axes and not rule(context, node, axes, positions):
            raise context.refuse(
                f"{node.op_type} works along the rows of a cache from their end, or takes in all of them",
                node=node,
                found=f"{source.name!r} {list(map(str, context.facts.shape(source) or ()))}",
                wanted="rows taken from the first on, or masked ones",
                hint="With a cache of fixed size the last row is not the last token.",
            )


def refuse_choices(context: ConversionContext) -> None:
    """Raises PassRefused where a branch is taken by the length of the text: a cache of fixed size does not tell it."""
    for node, condition in grown_choices(context.model, context.facts, str(context.past)):
        raise context.refuse(
            f"{node.op_type} chooses by the length of the text, which a cache of fixed size hides",
            node=node,
            found=condition.name,
            wanted="one choice for every length",
            hint="Export the side that is wanted alone.",
        )


def refuse_in_bodies(context: ConversionContext) -> None:
    """Raises PassRefused where a body of If or Loop takes rows of a cache, or a length made of them, from outside."""
    for scope in nested(context.model.graph):
        for node in scope if scope is not context.model.graph else ():
            for value in node.inputs:
                content = context.facts.ints(value) if value is not None else None
                depends = content is not None and any(
                    isinstance(item, Expr) and str(context.past) in free_symbols(item) for item in content.items
                )
                if value is not None and (depends or _rows(context, value)):
                    raise context.refuse(
                        "a body of If or Loop works on what the past's length sizes",
                        node=node,
                        found=value.name,
                        hint="Choose the branch first (select-branch), or unroll the loop.",
                    )


def _rows(context: ConversionContext, value: ir.Value) -> set[int]:
    shape = context.facts.shape(value) or ()
    return {axis for axis, dim in enumerate(shape) if str(context.past) in free_symbols(dim)}


def _sliced(context: ConversionContext, node: ir.Node, axes: set[int], positions: ir.Value) -> bool:
    """From a row that is counted from the start; to the end, or to one counted from the start."""
    rank = len(context.facts.shape(node.inputs[0]) or ()) if node.inputs[0] is not None else 0
    starts, ends = (context.facts.ints(v) if (v := node.inputs[i]) is not None else None for i in (1, 2))
    taken = constant_ints(node.inputs[3]) if len(node.inputs) > 3 else list(range(rank))
    steps = constant_ints(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else None
    if starts is None or ends is None or taken is None:
        return False
    shape = context.facts.shape(node.inputs[0]) or () if node.inputs[0] is not None else ()
    for at, axis in enumerate(number % rank for number in taken):
        if axis not in axes:
            continue
        start, end = starts.items[at], ends.items[at]
        counted = isinstance(start, int) and start >= 0
        whole_tail = not isinstance(end, int) or end >= 0 or shape[axis] != context.past + context.sequence
        if not counted or not whole_tail or (steps is not None and steps[at] < 1):
            return False
    return True


def _gathered(context: ConversionContext, node: ir.Node, axes: set[int], positions: ir.Value) -> bool:
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    rank = len(context.facts.shape(node.inputs[0]) or ()) if node.inputs[0] is not None else 1
    numbers = constant_ints(node.inputs[1])
    return axis % rank not in axes or numbers is None or all(number >= 0 for number in numbers)


def _reduced(context: ConversionContext, node: ir.Node, axes: set[int], positions: ir.Value) -> bool:
    """Over other axes, or over what a mask made from positions has emptied."""
    rank = len(context.facts.shape(node.inputs[0]) or ()) if node.inputs[0] is not None else 1
    named = [node.attributes["axis"].as_int()] if "axis" in node.attributes else axes_of(node)
    if named is not None and not {axis % rank for axis in named} & axes:
        return True
    assert node.inputs[0] is not None
    return depends_on_positions(context, [node.inputs[0]], positions)


def _summed(context: ConversionContext, node: ir.Node, axes: set[int], positions: ir.Value) -> bool:
    """Running sums from the first row on."""
    return "reverse" not in node.attributes or node.attributes["reverse"].as_int() == 0


def _along(context: ConversionContext, node: ir.Node, axes: set[int], positions: ir.Value) -> bool:
    """Only along other axes."""
    rank = len(context.facts.shape(node.inputs[0]) or ()) if node.inputs[0] is not None else 1
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    return axis % rank not in axes


def _never(context: ConversionContext, node: ir.Node, axes: set[int], positions: ir.Value) -> bool:
    return False


_RULES: dict[str, Callable[[ConversionContext, ir.Node, set[int], ir.Value], bool]] = {
    **dict.fromkeys(names(lambda row: row.folds), _reduced),
    **dict.fromkeys(("Split", "TopK"), _along),
    **dict.fromkeys(("Conv", "ReverseSequence", "Resize", "NonZero", "Compress", "Pad"), _never),
    "Slice": _sliced,
    "Gather": _gathered,
    "GatherElements": _gathered,
    "CumSum": _summed,
}
