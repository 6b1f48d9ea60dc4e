"""Finds branches that a graph takes by how long the text is: with lengths fixed, one is taken for every text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from ..core.errors import PassRefused
from ..core.operators import of
from ..shapes.dtypes import dtype_of
from ..shapes.infer import Facts, IntTensor, propagate
from ..symbolic.dims import Expr, free_symbols

MAX_VISITS = 200


def refuse_length_choices(
    model: ir.Model, facts: Facts, empty: Mapping[str, int], full: Mapping[str, int], where: str
) -> None:
    """Raises PassRefused where a condition holds for the sizes of a full cache and not for those of an empty one.

    A cache that grows is as long as its text; one of fixed size is full from the first token on, as the graph sees it.
    """
    conditions = list(_conditions(model, facts))
    if not conditions:
        return
    first, last = (propagate(model, binding=dict(sizes)) for sizes in (empty, full))
    for node, condition in conditions:
        before, after = first.ints(condition), last.ints(condition)
        if before is not None and after is not None and before.items != after.items:
            raise PassRefused(
                f"{node.op_type} {node.name!r} chooses by the length of the text, which a cache of fixed size hides",
                where=where,
                found=f"{condition.name!r} is {_as_text(before)} for the first run, {_as_text(after)} for a full cache",
                wanted="one choice for every length",
                hint="A smaller ctx may keep to one side of the choice; else export the side that is wanted alone.",
            )


def grown_choices(model: ir.Model, facts: Facts, past: str) -> Iterator[tuple[ir.Node, ir.Value]]:
    """Nodes that choose by a length that holds the symbol ``past``, each with its condition."""
    for node, condition in _conditions(model, facts):
        if any(_speaks_of(facts, value, past) for value in _computed_from(condition)):
            yield node, condition


def _computed_from(value: ir.Value) -> set[ir.Value]:
    work, seen = [value], set[ir.Value]()
    while work and len(seen) < MAX_VISITS:
        at = work.pop()
        node = at.producer()
        if at not in seen and node is not None and node.op_type != "Shape":
            work.extend(operand for operand in node.inputs if operand is not None)
        seen.add(at)
    return seen


def _speaks_of(facts: Facts, value: ir.Value, past: str) -> bool:
    content = facts.ints(value)
    items = content.items if content is not None and len(content.items) == 1 else ()
    return any(isinstance(item, Expr) and past in free_symbols(item) for item in items)


def _conditions(model: ir.Model, facts: Facts) -> Iterator[tuple[ir.Node, ir.Value]]:
    """Conditions of one element: of an If, or of a Where that chooses between whole float tensors."""
    for node in model.graph:
        chooses = of(node).decides
        condition = node.inputs[chooses] if chooses is not None else None
        if condition is None:
            continue
        shape, dtype = facts.shape(condition), dtype_of(node.outputs[0])
        single = shape is not None and all(dim == 1 for dim in shape)
        if node.op_type == "If" or (single and dtype is not None and dtype.is_floating_point()):
            yield node, condition


def _as_text(content: IntTensor) -> str:
    return ", ".join(str(bool(item)).lower() for item in content.items)
