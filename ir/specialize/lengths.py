"""Turns sizes by meaning (batch, tokens, context …) into a binding of a graph's own symbols, or says why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..core.errors import PassRefused
from ..interface.axes import Axis, Place
from ..interface.dimensions import DimensionAnalysis
from ..interface.roles import Role
from ..symbolic.dims import Dim, symbol
from ..symbolic.equations import Equation, Solution

_BROADCAST = (Role.POSITIONS, Role.ATTENTION_MASK, Role.ENCODER_MASK)  # a batch of 1 there serves any batch


@dataclass(frozen=True)
class Lengths:
    """The sizes of one specialization: rows that run, rows of the cache, tokens, context, rows with logits."""

    batch: int
    cache_batch: int
    seq: int
    ctx: int
    rows: int
    attended: int | None = None

    def wanted(self, meaning: Axis) -> int | None:
        """The size of a dimension of that meaning; None where these lengths say nothing of it."""
        return {
            Axis.BATCH: self.batch,
            Axis.CACHE_BATCH: self.cache_batch,
            Axis.SEQ: self.seq,
            Axis.CTX: self.ctx,
            Axis.PAST: self.ctx - self.seq,
            Axis.TOTAL: self.ctx,
            Axis.KEYS: self.ctx,
            Axis.ATTENDED: self.attended,
            Axis.LOGITS: self.rows,
        }.get(meaning)


def bind_lengths(
    canonical: DimensionAnalysis, lengths: Lengths, given: Mapping[str, int], where: str
) -> dict[str, int]:
    """Symbol -> size for every symbol of the graph that the lengths, ``given`` and the graph itself decide.

    A growing cache holds ``ctx - seq`` rows before a run, a shared buffer and a cache written in place have ``ctx``.
    PassRefused where the graph fixes a dimension to another size, or demands two sizes of one symbol.
    """
    shared = any(state.shares_buffer for state in canonical.states)
    known = Solution(canonical.solution.rank)
    for name, size in given.items():
        known.add(Equation(symbol(name), size, f"bind={name}:{size}"))
    asked = set[tuple[Dim, int]]()
    for place, size in _demands(canonical, lengths):
        if (place.dim, size) in asked:
            continue  # every layer's states ask for the same
        asked.add((place.dim, size))
        known.add(Equation(place.dim, size, f"{place} is {place.meaning.value}"))
        if known.broken:
            raise _refused(canonical, place, size, known, where)
    for dim, size in _convolved(canonical):
        if not isinstance(known.reduce(dim), int):
            known.add(Equation(dim, size, "rows that a convolution looks back"))
    found = {name: size for name, size in known.solved.items() if isinstance(size, int)}
    # a shared buffer holds the new rows already: total is not past + new there, as elsewhere
    complete = {**_outputs_of(canonical, found), **found} if shared else canonical.complete(found)
    return {name: complete[name] for name in sorted(complete)}


def _demands(canonical: DimensionAnalysis, lengths: Lengths) -> Iterator[tuple[Place, int]]:
    """Each dimension that the lengths decide, with its size."""
    kept = any(state.traits.keeps_every_row for state in canonical.states)
    inputs = {state.input.name or "": state for state in canonical.states if state.input is not None}
    rings = {name: state.window for name, state in inputs.items() if state.is_ring}
    buffers = {name: lengths.ctx for name, state in inputs.items() if state.shares_buffer}
    for place in canonical.places:
        size = lengths.wanted(place.meaning)
        own = {**buffers, **rings} if place.meaning is Axis.PAST else {}
        if place.value in own:
            size = own[place.value]
        elif place.group and place.meaning is not Axis.CTX:
            continue
        if size is None:
            continue
        if place.meaning is Axis.KEYS and not kept:
            size = lengths.seq
        broadcast = place.dim == 1 and canonical.roles.get(place.value) in _BROADCAST
        if not (place.meaning is Axis.BATCH and broadcast):
            yield place, size


def _convolved(canonical: DimensionAnalysis) -> Iterator[tuple[Dim, int]]:
    """The rows of convolutions' states: the convolution that reads them tells how many there are."""
    for state in canonical.states:
        if state.conv_rows is not None and state.length is not None:
            yield state.length, state.conv_rows


def _outputs_of(canonical: DimensionAnalysis, found: Mapping[str, int]) -> dict[str, int]:
    """Symbols of outputs alone that equal symbols which are bound."""
    complete = canonical.complete(found)
    return {name: complete[name] for name in (*canonical.derived, *canonical.needed) if name in complete}


def _refused(canonical: DimensionAnalysis, place: Place, size: int, known: Solution, where: str) -> PassRefused:
    have = known.reduce(place.dim)
    what = f"{place} ({place.meaning.value}) is {have}"
    state = next((s for s in canonical.states if s.input is not None and s.input.name == place.value), None)
    hint = "Export the graph with this dimension symbolic."
    if state is not None and state.traits.gains_rows:
        hint = "Convert the states first (convert-states), or choose other lengths."
    return PassRefused(f"{what}, which these lengths do not fit", where=where, found=have, wanted=size, hint=hint)
