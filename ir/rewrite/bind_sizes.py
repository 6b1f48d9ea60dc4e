"""A graph is made static: every dimension a number, shape arithmetic folded, inputs that only had a shape gone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from ..core.errors import PassRefused
from ..core.scopes import nested
from ..shapes.infer import Facts, Trust, propagate
from ..symbolic.dims import Dim, free_symbols
from ..symbolic.equations import bound_value
from ..symbolic.symbols import dims_of, substitute_symbols
from .simplify import simplify_round

BOUND = "onnx_llm_passes.bound."
"""What the metadata keys of a model begin with that tell, symbol by symbol, the sizes written into it."""
MAX_ROUNDS = 8
MAX_NESTING = 16  # of functions


@dataclass
class Fixed:
    """What became of a graph: counts, and the inputs that went because only their shape was used."""

    counts: dict[str, int] = field(default_factory=dict[str, int])
    dropped: tuple[str, ...] = ()


def static_facts(model: ir.Model, binding: Mapping[str, int], *, where: str) -> Facts:
    """The graph's shapes under ``binding``; PassRefused where a dimension of an input or output stays open."""
    refuse_other_defaults(model, binding, where)
    facts = propagate(model, binding=binding, trust=Trust.VALUE_INFOS)
    _refuse_open(model, facts, binding, where)
    return facts


def refuse_other_defaults(model: ir.Model, binding: Mapping[str, int], where: str) -> None:
    """Raises PassRefused where an optional input would get sizes that its default has not: no runtime loads that."""
    for value in model.graph.inputs:
        tensor = value.const_value if value.is_initializer() else None
        for axis, dim in enumerate(dims_of(value) or () if tensor is not None else ()):
            size = bound_value(dim, binding) if dim is not None else None
            held = int(tensor.shape.numpy()[axis]) if tensor is not None else size
            if size is not None and size != held:
                raise PassRefused(
                    f"optional input {value.name!r} would have a default of another size than its type",
                    where=where,
                    found=f"{dim} = {size} on axis {axis}",
                    wanted=f"{held}, as its default has",
                    hint=f"Give bind={dim}:{held}, or export {value.name!r} as an input without a default.",
                )


def make_static(model: ir.Model, binding: Mapping[str, int], facts: Facts, *, where: str) -> Fixed:
    """Writes ``binding`` into the graph and folds what it decides, in place; ``facts`` are of :func:`static_facts`."""
    used = [value for value in model.graph.inputs if value.uses()]
    _write_sizes((*model.graph.inputs, *model.graph.outputs), facts)
    symbols: dict[str, Dim] = dict(binding)
    changed = substitute_symbols(model, symbols)
    counts = {"values": changed, "functions": _open_functions(model), **_fold(model, where)}
    dropped = drop_idle(model.graph, used)
    shaped = _write_shapes(model)
    model.metadata_props.update({f"{BOUND}{name}": str(size) for name, size in sorted(binding.items())})
    return Fixed({**counts, "inputs": len(dropped), "shapes": shaped}, dropped)


def bound_in(model: ir.Model) -> dict[str, int]:
    """The sizes that were written into the graph, by symbol; none where its metadata hold no such thing."""
    pairs = ((key.removeprefix(BOUND), text) for key, text in model.metadata_props.items() if key.startswith(BOUND))
    return {name: int(text) for name, text in pairs if _DECIMAL.fullmatch(text)}


_DECIMAL = re.compile(r"0|[1-9]\d{0,9}", re.ASCII)


def _refuse_open(model: ir.Model, facts: Facts, binding: Mapping[str, int], where: str) -> None:
    for value in model.graph.inputs:
        missing = {name for dim in dims_of(value) or () for name in free_symbols(dim)} - binding.keys()
        if missing or value.shape is None or any(dim is None for dim in dims_of(value) or ()):
            raise _open(value, where, str(value.shape), ", ".join(sorted(missing)))
    for value in model.graph.outputs:
        shape = facts.shape(value)
        if shape is None or not all(isinstance(dim, int) for dim in shape):
            declared = "an unknown rank" if shape is None else f"[{', '.join(map(str, shape))}]"
            raise _open(value, where, declared, "")


def _open(value: ir.Value, where: str, found: str, missing: str) -> PassRefused:
    return PassRefused(
        f"the shape of {value.name!r} is not decided",
        where=where,
        found=found,
        wanted=f"sizes of {missing}" if missing else "numbers",
        hint="Bind every symbol of the inputs; an output whose size depends on data has no static form.",
    )


def _write_sizes(values: Iterable[ir.Value], facts: Facts) -> None:
    for value in values:
        shape = facts.shape(value)
        if shape is not None and not value.is_initializer():
            value.shape = ir.Shape([dim for dim in shape if isinstance(dim, int)])


def _open_functions(model: ir.Model) -> int:
    """Inlines functions that count rows (Range over sizes), so that those counts become numbers too; returns how many.

    A body has one text for all its calls, and onnxruntime refuses a Range in it once the sizes around are known.
    """
    count = 0
    for _ in range(MAX_NESTING):
        wanted = {key for key, function in model.functions.items() if _counts_rows(function)}
        if not wanted:
            break
        count += len(wanted)
        InlinePass(criteria=lambda function, names=wanted: function.identifier() in names)(model)
    return count


def _counts_rows(function: ir.Function) -> bool:
    return any(node.op_type == "Range" and not node.domain for scope in nested(function) for node in scope)


def _fold(model: ir.Model, where: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for _ in range(MAX_ROUNDS):
        found = simplify_round(model)
        if not found:
            return counts
        for name, number in found.items():
            counts[name] = counts.get(name, 0) + number
    raise PassRefused(f"folding did not converge in {MAX_ROUNDS} rounds", where=where)


def drop_idle(graph: ir.Graph, used: Iterable[ir.Value]) -> tuple[str, ...]:
    """Inputs that were read, and are not any more: their shape was all that counted."""
    idle = [value for value in used if not value.uses() and not value.is_graph_output()]
    gone = {id(value) for value in idle}
    graph.inputs[:] = [value for value in graph.inputs if id(value) not in gone]
    return tuple(value.name or "" for value in idle)


def _write_shapes(model: ir.Model) -> int:
    """Numbers into the declared types of all inner values; a type whose dimensions stay open loses its shape."""
    facts = propagate(model, trust=Trust.INPUTS)
    shaped = 0
    for graph in nested(model.graph):
        for node in graph:
            for value in node.outputs:
                if value.type is None or value.is_graph_output():
                    continue
                shape = facts.shape(value)
                known = shape is not None and all(isinstance(dim, int) for dim in shape)
                if known and shape is not None:
                    value.shape = ir.Shape([dim for dim in shape if isinstance(dim, int)])
                    shaped += 1
                elif value.shape is not None and not value.shape.is_static():
                    value.shape = None
    return shaped
