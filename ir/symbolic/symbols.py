"""The named dimensions of a graph: where they stand, and replacing them in every type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from ..core.scopes import nested
from .dims import Dim, free_symbols, parse, substitute


def dims_of(value: ir.Value) -> tuple[Dim | None, ...] | None:
    """The declared dimensions of ``value`` in canonical form; None for an unknown rank or dimension."""
    if value.shape is None:
        return None
    return tuple(_dim(d) for d in value.shape)


def symbols_of(model: ir.Model) -> dict[str, list[str]]:
    """Each symbol of the graph's inputs and outputs, with the places it stands (``input_ids[1]``), in order."""
    places: dict[str, list[str]] = {}
    for value in (*model.graph.inputs, *model.graph.outputs):
        for axis, dim in enumerate(dims_of(value) or ()):
            for name in sorted(free_symbols(dim)):
                places.setdefault(name, []).append(f"{value.name}[{axis}]")
    return places


def substitute_symbols(model: ir.Model, binding: Mapping[str, Dim]) -> int:
    """Replaces symbols in the type of every value of the main graph and its subgraphs; returns how many changed."""
    if not binding:
        return 0
    changes: dict[str, int | str | None] = {}  # dim text -> its new form; None where nothing changes
    changed = 0
    for value in _values(model):
        shape = value.shape
        if shape is None or not any(_replacement(d, binding, changes) is not None for d in shape):
            continue
        new = (_replacement(d, binding, changes) for d in shape)
        value.shape = ir.Shape([d if n is None else n for d, n in zip(shape, new, strict=True)])
        changed += 1
    return changed


def number_dims(model: ir.Model) -> int:
    """Makes numbers of dimensions that are numbers in text (``"16"``), as some exporters write them; returns how many.

    transformers' exporter writes the fixed dimensions of past inputs so. Where no input or output has one, inner values
    are not looked at.
    """
    ports = (*model.graph.inputs, *model.graph.outputs)
    if not any(_numbers_in(value) for value in ports):
        return 0
    changed = 0
    for value in {id(value): value for value in (*ports, *_values(model))}.values():
        numbers = _numbers_in(value)
        if value.shape is not None and numbers:
            value.shape = ir.Shape([numbers.get(axis, dim) for axis, dim in enumerate(value.shape)])
            changed += len(numbers)
    return changed


def _numbers_in(value: ir.Value) -> dict[int, int]:
    """The axes whose dimension is the text of a number, and the number."""
    texts = {axis: dim.value for axis, dim in enumerate(value.shape or ()) if not isinstance(dim, int)}
    found = {axis: parse(text) for axis, text in texts.items() if text is not None and text.strip()[:1].isdigit()}
    return {axis: dim for axis, dim in found.items() if isinstance(dim, int)}


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for scope in nested(model.graph):
        yield from scope.inputs
        for node in scope:
            yield from node.outputs


def _replacement(
    dim: int | ir.SymbolicDim, binding: Mapping[str, Dim], known: dict[str, int | str | None]
) -> int | str | None:
    if isinstance(dim, int) or dim.value is None:
        return None
    text = dim.value
    if text not in known:
        old = parse(text)
        new = substitute(old, binding)
        known[text] = None if new == old else new if isinstance(new, int) else str(new)
    return known[text]


def _dim(dim: int | ir.SymbolicDim) -> Dim | None:
    if isinstance(dim, int):
        return dim
    return parse(dim.value) if dim.value is not None else None
