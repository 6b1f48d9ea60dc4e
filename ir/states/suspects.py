"""Inputs and outputs that look like a state's two ends, of a state that no layout explains."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..core.dataflow import reached
from ..core.scopes import holders
from ..symbolic.dims import Dim
from ..symbolic.symbols import dims_of
from .base import Pairing, State


@dataclass(frozen=True)
class Suspect:
    """An input and an output of one type and shape, the second computed from the first, that no found state pairs."""

    input: ir.Value
    output: ir.Value

    @property
    def text(self) -> str:
        """``past -> present``, as messages name it."""
        return f"{self.input.name} -> {self.output.name}"


def suspected_states(model: ir.Model, states: Sequence[State]) -> list[Suspect]:
    """The unpaired inputs and outputs that something may be carried by, each at most once; changes nothing.

    Types and shapes must agree. On one axis they may differ, as where a cache grows, if the output is known as keys or
    values; where names tell (``x_next``, ``new_x``), wherever an exporter made a dimension up. Nothing else may vary
    but the batch: what has a line for every token is no state, nor is what stands beside states without such a name.
    A graph with one input, or with one output that is computed, carries nothing. Integers are suspected beside others
    only, where names tell: lengths go through many graphs.
    """
    paired = {id(v) for s in states if s.pairing is Pairing.BOTH for v in (s.input, s.output)}
    inputs = [v for v in model.graph.inputs if id(v) not in paired and not v.is_initializer()]
    outputs = [v for v in model.graph.outputs if id(v) not in paired]
    copied = [o for o in model.graph.outputs if any(_is_copy(i, o) for i in inputs)]
    if len(model.graph.inputs) < 2 or len(model.graph.outputs) - len(copied) < 2:
        return []
    alone = {id(state.output) for state in states if state.pairing is Pairing.OUTPUT_ONLY}
    known = _lengths_of_others(model, states) if not paired else None
    fits = [(i, o) for i in inputs for o in outputs if i is not o and _fits(i, o, known, grows=id(o) in alone)]
    if not any(_is_float(past) for past, _ in fits):
        return []
    outer = holders(model.graph)
    after = {id(past): reached([past], outer) for past, _ in fits}
    return _matched((past, made) for past, made in fits if made in after[id(past)] and not _is_copy(past, made))


def _matched(fits: Iterable[tuple[ir.Value, ir.Value]]) -> list[Suspect]:
    """Each input with one output: those whose names go together first."""
    found: list[Suspect] = []
    taken: set[int] = set()
    for past, made in sorted(fits, key=lambda pair: not _named_alike(*pair)):
        if id(past) not in taken and id(made) not in taken:
            taken |= {id(past), id(made)}
            found.append(Suspect(past, made))
    return found


def _fits(past: ir.Value, made: ir.Value, others: set[Dim] | None, *, grows: bool) -> bool:
    before, after = dims_of(past), dims_of(made)
    if before is None or after is None or past.dtype != made.dtype or len(before) != len(after):
        return False
    differ = [(a, b) for a, b in zip(before, after, strict=True) if a != b or a is None]
    if _named_alike(past, made):
        fixed = any(isinstance(a, int) and isinstance(b, int) for a, b in differ)
        return not fixed and (not differ or len(differ) < len(before))
    if not _is_float(past) or not before or len(differ) > grows:
        return False
    if others is None or grows:
        return grows and others is not None  # beside states that are understood, what else has one shape is the text
    return all(isinstance(dim, int) for dim in before[1:]) and not set(before[1:2]) & others


def _is_float(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()


def _lengths_of_others(model: ir.Model, states: Sequence[State]) -> set[Dim]:
    """The second dimensions of integers and booleans that are no states: how many tokens a run takes."""
    held = {id(v) for s in states for v in (s.input, s.output)}
    values = [v for v in model.graph.inputs if id(v) not in held and v.dtype is not None and not _is_float(v)]
    return {dim for value in values for dim in (dims_of(value) or ())[1:2] if dim is not None}


def _is_copy(past: ir.Value, made: ir.Value) -> bool:
    """True for an input that comes back as it went in: nothing is computed, so nothing is carried."""
    value, steps = made, 0
    while (node := value.producer()) is not None and node.op_type in ("Identity", "Cast") and steps < 8:
        following = node.inputs[0]
        if following is None:
            return False
        value, steps = following, steps + 1
    return value is past


_ADDED = re.compile(
    r"^(?:new|next|out|output|present|updated|r|o|retained)_|_?(?:next|new|out|output|n|o|updated|RetainedState)$", re.I
)
_PAST = re.compile(r"^(?:past|prev|previous|in|input|old)_|_?(?:in|past|prev)$", re.I)


def _named_alike(past: ir.Value, made: ir.Value) -> bool:
    """True where one name is the other with what exporters add to a state's next value (``x_next``, ``new_x``)."""
    ours, theirs = past.name or "", made.name or ""
    plain = {ours.lower(), _PAST.sub("", ours).lower(), ours.lower().replace("past_key_values", "present")}
    stem = _ADDED.sub("", theirs).lower()
    return bool(stem) and theirs.lower() != ours.lower() and (stem in plain or theirs.lower() in plain)
