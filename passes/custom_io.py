"""custom-io lists in which precision states and float inputs are passed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import onnx_ir as ir

from ..ir.core.errors import PassRefused, UnknownNameError
from ..ir.interface.analysis import ALL, Known, analysis_of
from ..ir.manifests.custom_io_yaml import CUSTOM_IO, write_custom_io
from ..ir.manifests.precisions import PRECISIONS, refusal
from ..ir.program.program import Program
from ..ir.states import Pairing, State
from .base import Pass, Report

Precision = Literal["mxint8", "float16", "bfloat16", "float32"]


@dataclass(frozen=True)
class CustomIO(Pass):
    """Lists the precision in which states and float inputs are passed, and writes ``custom_io.yaml``; no graph changes.

    Before → after::

        past_key.0: float → past_key.0_RetainedState     →   past_key.0, past_key.0_RetainedState: mxint8
        pixel_values: float                              →   pixel_values: float16
        input_ids: int64                                 →   (never listed)

    1. Caches that grow or are written in place get ``kv``, each input followed by its output.
    2. Other states (convolutions, recurrences, cross-attention) and float inputs get ``float``: a cache format is not
       for them.
       A tensor of half precision keeps its own kind of it: bfloat16 where float16 is asked for, and the other way.
    3. ``overrides`` has the last word for single names, outputs included; both sides of a state must agree.

    Left alone: inputs of integers, truth values and floats of eight bits, and outputs that are no states. Refused: a
    name that the graphs do not have, a precision that cannot hold the tensor's element type, mxint8 beside bfloat16.

    Attributes:
        kv: The precision of caches.
        float: The precision of other float states and inputs.
        overrides: Name -> precision.
    """

    name: ClassVar[str] = "custom-io"
    preserves: ClassVar[frozenset[Known]] = ALL

    kv: Precision = "float16"
    float: Precision = "float16"
    overrides: Mapping[str, str] = field(default_factory=dict[str, str])

    def run(self, program: Program) -> Report:
        """Fills in the program's list; raises before it changes anything."""
        found = {name: self._listed(model) for name, model in program.graphs.items()}
        values = {v.name or "": v for model in program.graphs.values() for v in _ports(model)}
        for name in self.overrides:
            if name not in values:
                raise UnknownNameError("input or output", name, values, where=self.name)
        states = [state for model in program.graphs.values() for state in analysis_of(model).states]
        listed = {name: kind for entries in found.values() for name, kind in entries.items()} | dict(self.overrides)
        for name, precision in listed.items():
            why = refusal(name, precision, values, listed, states)
            if why is not None:
                raise PassRefused(why.what, where=self.name, hint=f"{why.hint[:1].upper()}{why.hint[1:]}.")
        _refuse_halves(states, listed, self.name)
        program.custom_io = listed
        for name in program.names:
            clone = program.clones.get(name)
            own = {value.name for value in _ports(program.graphs[name if clone is None else clone.base])}
            entries = {port: kind for port, kind in listed.items() if port in own}
            if entries:
                file = CUSTOM_IO if len(program.names) == 1 else f"{name}.{CUSTOM_IO}"
                program.artifacts[file] = write_custom_io(entries)
        if not listed:
            return Report(notes=("no state and no float input: nothing listed",))
        return Report(modified=True, counts={"entries": len(listed)})

    def _listed(self, model: ir.Model) -> dict[str, str]:
        """States first, input before output, then the other float inputs in the graph's order."""
        listed: dict[str, str] = {}
        for state in analysis_of(model).states:
            caches = state.traits.keeps_rows and state.pairing is Pairing.BOTH
            for value in (state.input, state.output):
                if value is not None and _is_float(value):
                    listed[value.name or ""] = _fitting(self.kv if caches else self.float, value)
        for value in model.graph.inputs:
            if _is_float(value) and not value.is_initializer():
                listed.setdefault(value.name or "", _fitting(self.float, value))
        return listed


def _ports(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    yield from model.graph.outputs


def _fitting(precision: str, value: ir.Value) -> str:
    """The half precision that a tensor has, where one of 16 bits was asked for: neither holds the other's numbers."""
    own = {ir.DataType.FLOAT16: "float16", ir.DataType.BFLOAT16: "bfloat16"}
    return own.get(value.dtype or ir.DataType.FLOAT, precision) if precision in own.values() else precision


def _is_float(value: ir.Value) -> bool:
    return value.dtype in PRECISIONS["float32"]


def _refuse_halves(states: list[State], listed: Mapping[str, str], owner: str) -> None:
    for state in states:
        if state.pairing is not Pairing.BOTH or state.input is None or state.output is None:
            continue
        old, new = listed.get(state.input.name or ""), listed.get(state.output.name or "")
        if old != new:
            raise PassRefused(
                f"state {state.name!r} enters as {old} and leaves as {new} in {state.output.name!r}",
                where=owner,
                wanted="one precision for both",
                hint="Override both names.",
            )
