"""A part reads sizes of its own inputs, not of values that other parts have; what cannot be had so is refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx_ir as ir

from ...core.errors import PassRefused
from ...symbolic.dims import Dim, free_symbols
from ..builder import Builder
from ..size_arithmetic import Anchors, anchors_of, emit_sizes
from .boundaries import is_size

OWNER = "split"


def own_lengths(
    part: ir.Model,
    handed: Collection[str],
    others: Collection[str],
    shapes: Mapping[str, Sequence[Dim | None] | None],
    owner: str,
) -> list[str]:
    """Reads sizes of other parts' values off an input of the part that has the same; the names of those left.

    ``handed`` are the inputs that are the part's own, ``others`` those that may be another's.
    """
    inputs = {value.name or "": value for value in part.graph.inputs}
    own = [name for name in inputs if name in handed or name not in others]
    anchors = anchors_of([inputs[name] for name in own], [shapes.get(name) or () for name in own])
    left: list[str] = []
    for name in [name for name in inputs if name in others and name not in handed]:
        value, shape = inputs[name], shapes.get(name)
        same = next((inputs[other] for other in own if shape is not None and shapes.get(other) == shape), None)
        if not all(is_size(use.node) for use in value.uses()):
            left.append(name)
        elif same is not None:
            ir.convenience.replace_all_uses_with(value, same)
        elif shape is None or not _spelled_out(part.graph, value, shape, anchors, owner):
            left.append(name)
        if not value.uses():
            part.graph.inputs.remove(value)
    return left


def _spelled_out(graph: ir.Graph, value: ir.Value, shape: Sequence[Dim | None], anchors: Anchors, owner: str) -> bool:
    """Whether the sizes of a value could be computed of those of inputs; nodes that read them are then replaced."""
    builder = Builder(graph, owner)
    made: list[tuple[ir.Node, ir.Value]] = []
    for node in [use.node for use in value.uses()]:
        ends = [node.attributes[k].as_int() if k in node.attributes else None for k in ("start", "end")]
        dims = [dim for dim in shape[slice(*ends)] if dim is not None]
        if len(dims) < len(shape[slice(*ends)]) or any(free_symbols(dim) - anchors.keys() for dim in dims):
            return False
        made.append((node, emit_sizes(builder, dims, anchors, f"{value.name}/sizes")))
    builder.place_front()
    for node, sizes in made:
        ir.convenience.replace_all_uses_with(node.outputs[0], sizes)
        graph.remove(node, safe=True)
    return True


def refuse_foreign(
    borrowed: Sequence[Sequence[str]],
    parts: Sequence[ir.Model],
    names: Sequence[str],
    sources: Mapping[str, int],
    owner: str,
) -> None:
    """Refuses parts that need the rows of a state that another one carries, or the size of a value inside it."""
    for part, taken, name in zip(parts, borrowed, names, strict=True):
        inputs = {value.name: value for value in part.graph.inputs}
        rows = [s for s in taken if s not in sources or not all(is_size(use.node) for use in inputs[s].uses())]
        if rows:
            whose = repr(names[sources[rows[0]]]) if rows[0] in sources else "another part"
            raise PassRefused(
                f"part {name!r} needs what {whose} has",
                where=owner,
                found=", ".join(rows[:4]),
                wanted="parts that take hidden states and their own past",
                hint="carry=true hands it on.",
            )
