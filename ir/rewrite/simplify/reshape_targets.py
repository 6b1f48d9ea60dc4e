"""Targets of Reshape and Expand become constants: 0 copies, one -1 takes the rest, 1 broadcasts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx_ir as ir

from ...shapes.infer import IntTensor
from ...shapes.infer.algebra import lower_bound
from ...shapes.infer.context import OpKey
from ...symbolic.dims import Dim, Expr
from .scope import Round, Scope

Rewrite = Callable[[Round, Scope, ir.Node], None]
INT64 = ir.DataType.INT64


def nonzero(state: Round, dim: Dim) -> bool:
    """Certain that a dimension is not 0 in any run that the graph survives."""
    low = lower_bound(dim)
    if isinstance(dim, int) or dim in state.positive or (low is not None and low >= 1):
        return dim != 0
    if low is None:
        return False
    return any(all(atom in state.positive for atom in mono) for mono, _ in dim.terms if mono)


def learn_positive(state: Round, nodes: Iterable[ir.Node]) -> None:
    """A -1 beside a dimension of 0 fails at run time: what stands beside a -1 in a live Reshape is never 0."""
    for node in nodes:
        if node.op_type == "Reshape" and not node.domain:
            target = state.ctx.items(node, 1)
            if target is None or -1 not in target:
                continue
            source = state.ctx.shape(node, 0)
            for place, item in enumerate(target):
                dim = source[place] if item == 0 and source is not None and place < len(source) else item
                if isinstance(dim, Expr):
                    _positive(state, dim)


def _positive(state: Round, dim: Expr) -> None:
    state.positive.add(dim)
    if len(dim.terms) == 1:
        state.positive.update(dim.terms[0][0])


def reshape(state: Round, scope: Scope, node: ir.Node) -> None:
    """The target from the result's shape, where it depends on symbols and at most one has to be guessed."""
    target = state.content(node.inputs[1]) if len(node.inputs) > 1 else None
    source, result = state.ctx.shape(node, 0), state.facts.shapes.get(node.outputs[0])
    if target is None or target.concrete or source is None or result is None:
        return
    items = reshape_items(state, source, result)
    if items is not None:
        state.copying.add(node)
        _replace(state, scope, node, IntTensor((len(items),), items, INT64))


def reshape_items(state: Round, source: tuple[Dim, ...], result: tuple[Dim, ...]) -> tuple[int, ...] | None:
    """Constants for each dimension of the result; None where they would not say the same."""
    items: list[int] = []
    hole = -1
    for place, dim in enumerate(result):
        if place < len(source) and source[place] == dim:
            items.append(dim if isinstance(dim, int) and dim != 0 else 0)
        elif isinstance(dim, int):
            if dim == 0:
                return None
            items.append(dim)
        elif hole < 0:
            hole = place
            items.append(-1)
        else:
            return None
    if hole >= 0 and not all(nonzero(state, dim) for place, dim in enumerate(result) if place != hole):
        return None
    return tuple(items)


def expand(state: Round, scope: Scope, node: ir.Node) -> None:
    """1 wherever the input has the dimension already."""
    target = state.content(node.inputs[1]) if len(node.inputs) > 1 else None
    source, result = state.ctx.shape(node, 0), state.facts.shapes.get(node.outputs[0])
    if target is None or target.concrete or source is None or result is None:
        return
    padded = (None,) * (len(result) - len(source)) + source
    items = [1 if given == dim else dim for given, dim in zip(padded, result, strict=True)]
    numbers = tuple(item for item in items if isinstance(item, int))
    if len(numbers) == len(items):
        _replace(state, scope, node, IntTensor((len(numbers),), numbers, INT64))


def _replace(state: Round, scope: Scope, node: ir.Node, tensor: IntTensor) -> None:
    inputs = state.read(node)
    inputs[1] = state.target(scope, tensor, node)
    state.inputs[node] = inputs
    state.count("targets")


TARGETS: dict[OpKey, Rewrite] = {("", "Expand"): expand, ("", "Reshape"): reshape}
