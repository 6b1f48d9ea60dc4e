"""Dimensions that an export left without a name get one, so that sizes can be bound and held against each other."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ..core.errors import PassRefused, UnknownNameError
from ..symbolic.dims import parse


def name_dims(model: ir.Model, dims: Mapping[str, str], owner: str) -> int:
    """Gives the dimensions ``NAME.AXIS`` of inputs and outputs their symbols; returns how many.

    Raises UnknownNameError for an input or output that the graph has not, PassRefused for a dimension that has a name
    or a size already, for an axis that is none, and for a symbol that is no name.
    """
    where = f"{owner}, graph {model.graph.name!r}"
    found = [(*_place(model, text, where), symbol) for text, symbol in dims.items()]
    for value, axis, symbol in found:
        held = value.shape[axis] if value.shape is not None else None
        if not isinstance(held, ir.SymbolicDim) or held.value is not None or not _is_name(symbol):
            raise PassRefused(
                f"dimension {axis} of {value.name!r} cannot be named {symbol!r}",
                where=where,
                found=f"{value.name}{value.shape}",
                wanted="a dimension without a name and without a size, and a name of letters, digits and underscores",
                hint="`onnx-passes inspect` shows a dimension without a name as a question mark.",
            )
    for value, axis, symbol in found:
        assert value.shape is not None
        sizes = list(value.shape)
        sizes[axis] = ir.SymbolicDim(symbol)
        value.shape = ir.Shape(sizes)
    return len(found)


def _place(model: ir.Model, text: str, where: str) -> tuple[ir.Value, int]:
    """The input or output and the axis that ``text`` names."""
    name, _, axis = text.rpartition(".")
    ports = {value.name or "": value for value in (*model.graph.inputs, *model.graph.outputs)}
    if name not in ports:
        hint = "Give dims=NAME.AXIS:SYMBOL; `onnx-passes inspect` lists all inputs and outputs."
        raise UnknownNameError("input or output", name or text, sorted(ports), where=where, hint=hint)
    value = ports[name]
    rank = len(value.shape) if value.shape is not None else 0
    if not axis.isdecimal() or int(axis) >= rank:
        raise PassRefused(
            f"{name!r} has no axis {axis!r}", where=where, found=f"{rank} dimensions", wanted=f"0 to {max(rank - 1, 0)}"
        )
    return value, int(axis)


def _is_name(symbol: str) -> bool:
    """True for one plain symbol: no size, no sum, nothing that other tools would compute."""
    return symbol.isidentifier() and not isinstance(parse(symbol), int)
