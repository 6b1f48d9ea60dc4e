"""Lengths computed from the past's are recomputed: past + seq becomes the rows of the cache, wherever it stands."""

from __future__ import annotations

import onnx_ir as ir

from ...core.operators import of
from ...core.scopes import remove_dead
from ...shapes.infer import Facts, IntTensor
from ...shapes.infer.declared import is_fresh
from ...symbolic.dims import Dim
from ...symbolic.symbols import dims_of
from ..size_arithmetic import anchors_of, emit_sizes
from .context import ConversionContext

MAX_ROUNDS = 8  # a replaced length can unmask one that was right by accident; two rounds do for every exporter


def rewire_lengths(context: ConversionContext) -> None:
    """Computes anew every length that the changed caches would make wrong, and removes what served the old ones.

    A length of the old graph and the same node's length in the edited graph are both known as expressions: where they
    differ at the first node that the past's own length enters, the node's result is replaced. Raises PassRefused where
    a length does not follow from the inputs.
    """
    for _ in range(MAX_ROUNDS):
        dead = _round(context)
        if not dead:
            return
        context.builder.place_front()
        remove_dead(dead)
    raise context.refuse(
        "its lengths could not be written in the new symbols", found=f"{MAX_ROUNDS} rounds without an end"
    )


def _round(context: ConversionContext) -> list[ir.Node]:
    now = context.sweep.run()
    inputs = [value for value in context.model.graph.inputs if not value.is_initializer()]
    anchors = anchors_of(inputs, [dims_of(value) or () for value in inputs])
    dead: list[ir.Node] = []
    for node in list(context.model.graph):
        for value in node.outputs:
            content = _to_replace(context, node, value, now)
            if content is not None:
                value.replace_all_uses_with(_emit(context, node, content, anchors))
                dead.append(node)
    return dead


def leaking(context: ConversionContext, value: ir.Value | None) -> IntTensor | None:
    """The content of ``value`` where it tells the past's own length, else None."""
    content = context.facts.ints(value) if value is not None else None
    return content if content is not None and any(context.leaks(item) for item in content.items) else None


def _to_replace(context: ConversionContext, node: ir.Node, value: ir.Value, now: Facts) -> IntTensor | None:
    """What ``value`` has to hold, where it would hold something else and here is the place to say so."""
    before = context.facts.ints(value)
    if before is None or not value.uses() or any(context.leaks(item) or is_fresh(item) for item in before.items):
        return None
    wanted = IntTensor(before.shape, tuple(context.wanted(item) for item in before.items), before.dtype)
    after = now.ints(value)
    if after is not None and after.items == wanted.items:
        return None
    source = of(node).sizes
    return wanted if source or any(leaking(context, operand) for operand in node.inputs) else None


def _emit(
    context: ConversionContext, node: ir.Node, content: IntTensor, anchors: dict[str, tuple[ir.Value, int]]
) -> ir.Value:
    builder, name = context.builder, f"{node.name or node.op_type}/length"
    items: list[Dim] = [int(item) if isinstance(item, bool) else item for item in content.items]
    try:
        value = emit_sizes(builder, items, anchors, name)
    except KeyError as error:
        raise context.refuse(
            f"a length is computed that no input tells: {error.args[0]}",
            node=node,
            found=", ".join(map(str, content.items)),
            hint="Name the dimensions of the graph's inputs, then run again.",
        ) from error
    if len(content.shape) == 0:
        value = builder.op("Squeeze", [value, builder.ints([0], "first")], f"{name}/scalar", shape=())
    elif len(content.shape) > 1:
        value = builder.op(
            "Reshape", [value, builder.ints(list(content.shape), "shape")], f"{name}/shaped", shape=content.shape
        )
    return builder.cast(value, content.dtype, f"{name}/cast")
