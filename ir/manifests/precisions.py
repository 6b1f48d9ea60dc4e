"""Custom I/O precisions: which there are, what they can hold, and why a listed one is refused."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..states import State

PRECISIONS: dict[str, frozenset[ir.DataType]] = {
    "float32": frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}),
    "float16": frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE}),
    "bfloat16": frozenset({ir.DataType.FLOAT, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}),
    "mxint8": frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE}),
}
"""Precision -> element types that it can hold: float16 has not bfloat16's range, nor bfloat16 its digits."""


@dataclass(frozen=True)
class Refusal:
    """Why an entry cannot stand: a sentence, and what would do."""

    what: str
    hint: str = ""


def refusal(
    name: str,
    precision: str,
    values: Mapping[str, ir.Value],
    listed: Mapping[str, str],
    states: Sequence[State],
) -> Refusal | None:
    """Why ``name: precision`` cannot stand in ``listed``; None where it can.

    ``values`` are the graph's inputs and outputs by name.
    """
    for found in _refusals(name, precision, values, listed, states):
        return found
    return None


def _refusals(
    name: str, precision: str, values: Mapping[str, ir.Value], listed: Mapping[str, str], states: Sequence[State]
) -> Iterator[Refusal]:
    if name not in values:
        near = difflib.get_close_matches(name, list(values), n=1, cutoff=0.5)
        yield Refusal(f"{name!r} is no input or output of the graph", f"did you mean {near[0]!r}?" if near else "")
        return
    if precision not in PRECISIONS:
        yield Refusal(f"{name!r} is listed as {precision!r}, which is no precision", f"one of {', '.join(PRECISIONS)}")
        return
    dtype = values[name].dtype
    if dtype is None or not dtype.is_floating_point():
        kind = dtype.name if dtype is not None else "of unknown type"
        yield Refusal(f"{name!r} is {kind}: only floating-point tensors are listed", "leave it out")
    elif dtype not in PRECISIONS[precision]:
        fits = [other for other, types in PRECISIONS.items() if dtype in types]
        what = f"{name!r} is {dtype.name}, which {precision} cannot hold"
        yield Refusal(what, f"one of {', '.join(fits)}" if fits else "leave it out: it has eight bits already")
    if precision == "mxint8" and "bfloat16" in listed.values():
        yield Refusal(
            f"{name!r} is mxint8 beside bfloat16 entries, which the target's compiler does not take together",
            "float16 beside mxint8, or bfloat16 for all",
        )
    if precision == "mxint8" and not _is_cache(name, states):
        yield Refusal(f"{name!r} is mxint8 and no growing cache: mxint8 is a cache format", "float16")


def _is_cache(name: str, states: Sequence[State]) -> bool:
    return any(
        state.traits.keeps_rows and value is not None and value.name == name
        for state in states
        for value in (state.input, state.output)
    )
