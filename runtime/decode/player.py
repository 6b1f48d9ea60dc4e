"""Runs one decoder graph over a text, chunk by chunk, from caches that several graphs of one program can share.

The caches lie on the host in one form for every layout: rows in the order of their tokens. What a graph takes and gives
(a padded past, a buffer written in place, only the new rows) is made from that form and put back into it.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ...ir.interface.logits import logits_output
from ...ir.interface.roles import Role
from ...ir.states import Layout, State
from ..session.legalize import legalized
from ..session.session import Session
from ..session.subject import Subject, dim_of, starts_each_row, static
from .cases import Case, Padding
from .inputs import build_inputs


class Tail(enum.Enum):
    """What fills a run that takes more tokens than there are."""

    PADDING = "padding"  # position -1, hidden by the mask
    REJECTED = "rejected"  # other tokens, as wrong proposals are; nothing of them may be left afterwards


@dataclass(frozen=True)
class Chunk:
    """Tokens of one run: ``tokens`` is ``[batch, length]``, the first ``count`` are real, at ``start`` and after it."""

    tokens: np.ndarray
    start: int
    count: int
    tail: Tail = Tail.PADDING
    rows: tuple[int, ...] | None = None  # rows of the cache, where the graph chooses among them

    @property
    def length(self) -> int:
        """How many tokens the run takes."""
        return self.tokens.shape[1]

    @property
    def seen(self) -> int:
        """How many tokens the run treats as real."""
        return self.length if self.tail is Tail.REJECTED else self.count


@dataclass
class Caches:
    """Host copies of the states by input name, and how many tokens they hold."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    held: int = 0


@dataclass(eq=False)
class Player:
    """A graph with a session; ``switches`` are boolean inputs that are fixed, as a result of it has them."""

    subject: Subject
    session: Session
    ctx: int
    switches: Mapping[str, bool] = field(default_factory=dict[str, bool])

    @classmethod
    def of(cls, model: ir.Model, name: str, ctx: int, bound: ir.Model | None = None) -> Player:
        """Makes the session, of a runnable copy where INT32_MAX stands for "no index"; raises what Session raises."""
        return cls(Subject.of(bound or model, name), Session(legalized(model).model, name), ctx)

    @property
    def length(self) -> int | None:
        """How many tokens a run takes, None where any number will do."""
        return self.subject.fixed(1)

    @property
    def batch(self) -> int | None:
        """How many rows a run takes, None where any number will do."""
        return self.subject.fixed(0)

    @property
    def fixed_past(self) -> bool:
        """Whether a cache that grows has a fixed length, whose empty rows must be hidden."""
        grown = [s for s in self.subject.states if s.gains_row_per_token and not s.is_written]
        return any(static(dim_of(state, state.axis)) for state in grown if state.axis is not None)

    @property
    def room(self) -> int:
        """How many tokens the caches hold after a run."""
        for state in self.subject.states:
            rows = static(dim_of(state, state.axis)) if state.axis is not None and state.input is not None else None
            if rows is not None and state.is_written:
                return rows
            if rows is not None and state.gains_row_per_token:
                return rows + (self.length or 1)
        return (self.length or 1) * 8

    @property
    def pads(self) -> bool:
        """Whether a run may hold fewer tokens than it takes: something tells padding, and nothing carries it on."""
        by_row = self.subject.written_at is None or self.subject.pads_by_position
        told = self.subject.pads_by_position or (self.subject.masks and by_row)
        return told and self.rewinds and all(state.layout is not Layout.FUSED for state in self.subject.states)

    @property
    def rewinds(self) -> bool:
        """Whether rejected tokens can be taken back."""
        return all(s.gains_row_per_token or s.layout in (Layout.SCATTER, Layout.FIXED) for s in self.subject.states)

    @property
    def chooses_rows(self) -> bool:
        """Whether an input says which rows of the cache a run is about."""
        return bool(self.subject.inputs(Role.BATCH_INDEX))

    def inputs(self, caches: Caches, chunk: Chunk) -> dict[str, np.ndarray]:
        """What the graph is fed for a chunk."""
        batch = chunk.tokens.shape[0]
        positions = np.where(np.arange(chunk.length) < chunk.seen, chunk.start + np.arange(chunk.length), -1)
        case = Case(batch, chunk.length, Padding.FULL, np.tile(positions, (batch, 1)), 0)
        fed = build_inputs(self.subject, case)
        fed |= {name: np.full_like(fed[name], value) for name, value in self.switches.items() if name in fed}
        keys = self._keys(chunk)
        for value in self.subject.model.graph.inputs:
            name = value.name or ""
            role = self.subject.roles[name]
            if role is Role.TOKEN_IDS:
                fed[name] = chunk.tokens.astype(fed[name].dtype)
            elif role is Role.EMBEDDINGS:
                fed[name] = _embedded(name, chunk.tokens, fed[name])
            elif role is Role.POSITIONS and fed[name].ndim < 2:
                # one row for the whole batch, which holds no padding: further tokens stand behind the real ones
                steps = np.arange(fed[name].size) * (not starts_each_row(self.subject, value))
                fed[name] = (chunk.start + steps.reshape(fed[name].shape)).astype(fed[name].dtype)
            elif role is Role.ATTENTION_MASK:
                fed[name] = _mask(value, positions, keys, batch).astype(fed[name].dtype)
            elif role is Role.BATCH_INDEX and chunk.rows is not None:
                fed[name] = np.asarray(chunk.rows).reshape(fed[name].shape).astype(fed[name].dtype)
            elif name in self.subject.by_input:
                fed[name] = self._past(self.subject.by_input[name], fed[name], caches, batch)
        return fed

    def run(self, caches: Caches, chunk: Chunk, keep: int | None = None) -> dict[str, np.ndarray]:
        """Runs one chunk and puts the rows of its first ``keep`` tokens (all real ones by default) into the caches."""
        outputs = self.session.run(self.inputs(caches, chunk))
        kept = chunk.count if keep is None else keep
        for name, state in self.subject.by_input.items():
            if state.output is not None and state.output.name in outputs:
                self._store(state, name, outputs[state.output.name], caches, (chunk.length, kept))
        caches.held = chunk.start + kept
        return outputs

    def logits(self, outputs: Mapping[str, np.ndarray], chunk: Chunk) -> tuple[int, np.ndarray]:
        """The logits as ``[batch, rows, …]``, and which token its first row belongs to."""
        value = logits_output(self.subject.model, self.subject.states)
        assert value is not None, "a decoder has an output beside its states"
        array = outputs[value.name or ""]
        rows = array.shape[1]
        first = 0 if rows == chunk.length else max(chunk.seen - rows, 0)
        return first, array[:, : max(0, min(rows, chunk.seen - first))]

    def _keys(self, chunk: Chunk) -> np.ndarray:
        """The token that each key of the attention belongs to after the run, -1 where to none."""
        end = chunk.start + chunk.seen
        if any(state.is_written for state in self.subject.states):
            slots = np.arange(self._capacity())
            return np.where(slots < end, slots, -1)
        past = self._past_rows(chunk.start)
        new = np.where(np.arange(chunk.length) < chunk.seen, chunk.start + np.arange(chunk.length), -1)
        return np.concatenate([np.full(past - chunk.start, -1), np.arange(chunk.start), new])

    def _capacity(self) -> int:
        written = [state for state in self.subject.states if state.is_written]
        sizes = [static(dim_of(s, s.axis)) for s in written if s.axis is not None]
        return next((size for size in sizes if size is not None), self.ctx)

    def _past_rows(self, start: int) -> int:
        grown = [s for s in self.subject.states if s.gains_row_per_token]
        return max((static(dim_of(s, s.axis)) or 0 for s in grown if s.axis is not None), default=0) or start

    def _past(self, state: State, empty: np.ndarray, caches: Caches, batch: int) -> np.ndarray:
        name = state.input.name or "" if state.input is not None else ""
        held = caches.arrays.get(name)
        if held is None:
            held = caches.arrays[name] = self._first(state, empty, batch)
        if state.axis is None or not state.gains_row_per_token:
            return held
        rows = self._capacity() if state.is_written else self._past_rows(caches.held)
        past = np.take(held, range(min(caches.held, rows)), axis=state.axis)
        missing = list(past.shape)
        missing[state.axis] = rows - past.shape[state.axis]
        zeros = np.zeros(missing, past.dtype)
        # a buffer is filled from its first row on; a past that grows ends where the new rows begin
        return np.concatenate([past, zeros] if state.is_written else [zeros, past], axis=state.axis)

    def _first(self, state: State, empty: np.ndarray, batch: int) -> np.ndarray:
        if state.layout is Layout.FIXED or state.axis is None:
            return empty
        shape = list(empty.shape)
        if state.gains_row_per_token:
            shape[state.axis] = 0
        elif state.layout is Layout.SCATTER:
            shape[state.axis] = self._capacity()
        return np.zeros(shape, empty.dtype)

    def _store(self, state: State, name: str, output: np.ndarray, caches: Caches, sizes: tuple[int, int]) -> None:
        length, kept = sizes
        if state.axis is None or not state.gains_row_per_token:
            caches.arrays[name] = output
            return
        total = output.shape[state.axis]
        first = caches.held if state.is_buffer else total - length
        new = np.take(output, range(first, first + kept), axis=state.axis)
        old = np.take(caches.arrays[name], range(caches.held), axis=state.axis)
        caches.arrays[name] = np.concatenate([old, new], axis=state.axis)


def _embedded(name: str, tokens: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Rows for tokens where a graph takes embeddings: random ones, the same row for the same token in every run."""
    table = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(
        (int(tokens.max(initial=0)) + 1, like.shape[-1])
    )
    return table[tokens].astype(like.dtype)


def _mask(value: ir.Value, positions: np.ndarray, keys: np.ndarray, batch: int) -> np.ndarray:
    """What a mask input holds: which keys are real (rank 2), or which of them each token sees (more)."""
    rank = len(value.shape) if value.shape is not None else 2
    if rank == 2:
        return np.tile(keys >= 0, (batch, 1))
    seen = (keys[None, :] >= 0) & (keys[None, :] <= positions[:, None])
    allowed = np.broadcast_to(seen, (batch, *[1] * (rank - 3), len(positions), len(keys)))
    if value.dtype is None or not value.dtype.is_floating_point():
        return allowed
    return np.where(allowed, 0.0, np.finfo(value.dtype.numpy()).min)
