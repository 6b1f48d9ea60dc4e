"""Inputs and outputs that look like a state's two ends are named, where no layout explains the state."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..core.dataflow import reached
from ..core.operators.walks import SAME_PLACE
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

    Floats of one type and rank, the output computed from the input, or from others and named after it (the last token
    that a mixing layer hands on). Shapes agree, but for one axis of keys or values that grow, or for symbols that an
    exporter made up for the output. What has a line for every token is no state. A graph with one input, or with one
    output that is computed, carries nothing. Integers are not suspected: lengths go through many graphs. An optional
    input is one where its size is open; weights that old files list among the inputs have theirs.
    """
    paired = {id(v) for s in states if s.pairing is Pairing.BOTH for v in (s.input, s.output)}
    inputs = [v for v in model.graph.inputs if id(v) not in paired and (not v.is_initializer() or _is_open(v))]
    outputs = [v for v in model.graph.outputs if id(v) not in paired]
    copied = [o for o in model.graph.outputs if any(_is_copy(i, o) for i in inputs)]
    if len(model.graph.inputs) < 2 or len(model.graph.outputs) - len(copied) < 2:
        return []
    alone = {id(state.output) for state in states if state.pairing is Pairing.OUTPUT_ONLY}
    first = frozenset(
        dim
        for v in model.graph.inputs
        for dim in (dims_of(v) or ())[:1]
        if dim is not None and not isinstance(dim, int)
    )
    scene = _Sizes(_token_sizes(model, states), _input_symbols(model), first, bool(paired))
    fits = [(i, o) for i in inputs for o in outputs if i is not o and _fits(i, o, scene, grows=id(o) in alone)]
    if not fits:
        return []
    outer = holders(model.graph)
    after = {id(past): reached([past], outer) for past, _ in fits}
    return _matched(
        (past, made)
        for past, made in fits
        if not _is_copy(past, made)
        and (made in after[id(past)] or (dims_of(past) == dims_of(made) and past.uses() and _named_alike(past, made)))
    )


def _is_open(value: ir.Value) -> bool:
    return any(not isinstance(dim, int) for dim in dims_of(value) or ())


@dataclass(frozen=True)
class _Sizes:
    """What shapes are held against: tokens of a run, symbols of inputs, batches, whether states are understood."""

    tokens: frozenset[Dim]
    symbols: frozenset[Dim]
    batches: frozenset[Dim]
    paired: bool


def _matched(fits: Iterable[tuple[ir.Value, ir.Value]]) -> list[Suspect]:
    """Each input with one output, in the graph's order; of several that fit, the one that a name confirms."""
    found: list[Suspect] = []
    taken: set[int] = set()
    for past, made in sorted(fits, key=lambda pair: not _named_alike(*pair)):
        if id(past) not in taken and id(made) not in taken:
            taken |= {id(past), id(made)}
            found.append(Suspect(past, made))
    return found


def _fits(past: ir.Value, made: ir.Value, sizes: _Sizes, *, grows: bool) -> bool:
    """True for two shapes of one tensor at two times."""
    before, after = dims_of(past), dims_of(made)
    if not before or after is None or past.dtype != made.dtype or len(before) != len(after) or not _is_float(past):
        return False
    differ = [(a, b) for a, b in zip(before, after, strict=True) if a != b or a is None]
    if grows and len(differ) <= 1:
        return not {dim for dim in before[1:] if not isinstance(dim, int)} & sizes.tokens
    if sizes.paired and not sizes.tokens:
        return False  # beside states that are understood, what else has one shape may be the text
    if not differ and all(isinstance(dim, int) for dim in before[1:]):
        return _is_apart(before, sizes)
    return _is_block(before, after, sizes)


def _is_apart(before: Sequence[Dim | None], sizes: _Sizes) -> bool:
    """True where no axis counts tokens; beside states that are understood hidden rows have three, or are flat."""
    if not sizes.paired:
        return not set(before[1:2]) & sizes.tokens
    return len(before) != _HIDDEN_RANK and isinstance(before[0], int) and not (set(before) - {1}) & sizes.tokens


def _is_block(before: Sequence[Dim | None], after: Sequence[Dim | None], sizes: _Sizes) -> bool:
    """True where two sizes agree as numbers, and others as symbols or by one that no input has (made up on export).

    One is enough behind layers and the batch, in this order: what a cell of one layer carries.
    """
    pairs = list(zip(before, after, strict=True))
    same = [a for a, b in pairs if a == b and isinstance(a, int) and a > 1]
    known = all(a == b or (b is not None and not isinstance(b, int) and b not in sizes.symbols) for a, b in pairs)
    rank = _HIDDEN_RANK + sizes.paired
    if not known or len(before) < rank or set(before[1:]) & (sizes.tokens - {1}):
        return False
    return len(same) > 1 or (bool(same) and isinstance(before[0], int) and before[1] in sizes.batches)


_HIDDEN_RANK = 3  # batch, tokens, width


def _is_float(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()


def _token_sizes(model: ir.Model, states: Sequence[State]) -> frozenset[Dim]:
    """How many tokens a run takes: second dimensions of integers and booleans that are no states, and of new rows."""
    held = {id(v) for s in states for v in (s.input, s.output)}
    values = [v for v in model.graph.inputs if id(v) not in held and v.dtype is not None and not _is_float(v)]
    added = [(dims_of(s.new) or (), s.axis) for s in states if s.new is not None and s.axis is not None]
    rows = [dims[axis] for dims, axis in added if axis < len(dims)]
    ids = [dim for value in values for dim in (dims_of(value) or ())[1:2]]
    return frozenset(dim for dim in (*ids, *rows) if dim is not None)


def _input_symbols(model: ir.Model) -> frozenset[Dim]:
    dims = (dim for value in model.graph.inputs for dim in dims_of(value) or ())
    return frozenset(dim for dim in dims if dim is not None and not isinstance(dim, int))


def _is_copy(past: ir.Value, made: ir.Value) -> bool:
    """True for an input that comes back as it went in: nothing is computed, so nothing is carried."""
    value, steps = made, 0
    while (node := value.producer()) is not None and node.op_type in SAME_PLACE and steps < 8:
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
    """True where one name is the other with what exporters add to a state's next value (``x_next``, ``new_x``).

    It orders pairs that fit by structure, no more.
    """
    ours, theirs = past.name or "", made.name or ""
    plain = {ours.lower(), _PAST.sub("", ours).lower(), ours.lower().replace("past_key_values", "present")}
    stem = _ADDED.sub("", theirs).lower()
    return bool(stem) and theirs.lower() != ours.lower() and (stem in plain or theirs.lower() in plain)
