"""Runs a graph chunk by chunk, its carried states fed back by layout: what a host does, for tests and for replays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import UsageError
from ...ir.interface.logits import logits_output
from ...ir.interface.roles import Role, find_roles
from ...ir.states import Layout, Pairing, State, find_states
from ...ir.symbolic.dims import Dim, Expr
from ...ir.symbolic.symbols import dims_of
from ..session.session import Session

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]


@dataclass(frozen=True)
class Chunk:
    """The tokens that one sequence takes in one run, from position ``start`` on; none for an idle row."""

    tokens: tuple[int, ...]
    start: int = 0


class Stepper:
    """One graph, its caches, and a batch of sequences.

    Caches that grow hold one sequence each, so there a step is one run a sequence (a rewind cuts the cache back);
    caches written in place (``ctx`` rows each) hold the whole batch, padded with positions of -1 to the longest chunk,
    or to ``width``. ``others`` feeds inputs that no chunk tells, one line a sequence.
    """

    def __init__(
        self,
        model: ir.Model,
        batch: int = 1,
        ctx: int = 0,
        *,
        others: Mapping[str, Array] | None = None,
        session: Session | None = None,
    ) -> None:
        self.model = model
        self.session = session or Session(model)
        found = find_states(model)
        self.states = [s for s in found if s.pairing is Pairing.BOTH and s.traits.changes]
        self.roles = find_roles(model, found)
        self.batch = batch
        self.ctx = ctx
        self.others = dict(others or {})
        self.in_place = any(state.in_place for state in self.states)
        groups = 1 if self.in_place else batch
        self.caches: list[Arrays] = [self._empty(batch if self.in_place else 1) for _ in range(groups)]
        self.lengths = [0] * batch

    def step(self, chunks: Sequence[Chunk], width: int | None = None) -> list[Array]:
        """Runs one chunk for each sequence; gives each sequence's logits ``[len(tokens), vocabulary]``.

        Raises UsageError for a number of chunks other than the batch, or a start behind the sequence's end.
        """
        if len(chunks) != self.batch:
            raise UsageError("a step takes one chunk a sequence", found=len(chunks), wanted=self.batch)
        for row, chunk in enumerate(chunks):
            if chunk.tokens and chunk.start > self.lengths[row]:
                raise UsageError(
                    "a chunk starts behind the end", found=chunk.start, wanted=f"at most {self.lengths[row]}"
                )
        found = self._in_place(chunks, width) if self.in_place else self._one_by_one(chunks)
        for row, chunk in enumerate(chunks):
            if chunk.tokens:
                self.lengths[row] = chunk.start + len(chunk.tokens)
        return found

    def rows(self, layer: int | None, kind: str, row: int) -> Array:
        """What the cache holds of one sequence, rows in order on the last axis but one: ``[heads, length, size]``."""
        state = next(s for s in self.states if (s.layer, s.kind) == (layer, kind))
        cache = self.caches[0] if self.in_place else self.caches[row]
        lines, rows = self._axes(state)
        held = np.moveaxis(cache[state.name], (lines, rows), (0, -2))[row if self.in_place else 0]
        return held[..., : self.lengths[row], :]

    @property
    def separates(self) -> bool:
        """True where sequences of one batch may be of unequal length: each runs alone, or has positions of its own."""
        placed = [v for v in self.model.graph.inputs if self.roles.get(v.name or "") is Role.POSITIONS]
        own = bool(placed) and all(len(value.shape or ()) >= 2 for value in placed)
        return not self.in_place or (own and all(state.layout in _BY_POSITION for state in self.states))

    @property
    def _batch(self) -> Dim | None:
        """The dimension that counts sequences, as the tokens have it."""
        tokens = next((dims_of(v) for v in self.model.graph.inputs if self.roles.get(v.name or "") in _TOKENS), None)
        return tokens[0] if tokens else None

    def _axes(self, state: State) -> tuple[int, int]:
        """The axes of a cache that count sequences and rows."""
        dims = list(dims_of(state.input) or ()) if state.input is not None else []
        batch = self._batch
        return dims.index(batch) if isinstance(batch, Expr) and batch in dims else 0, state.axis or 0

    def _one_by_one(self, chunks: Sequence[Chunk]) -> list[Array]:
        outputs: list[Array] = []
        for row, chunk in enumerate(chunks):
            if not chunk.tokens:
                outputs.append(np.zeros((0, 0), np.float32))
                continue
            cache = self.caches[row]
            for state in self.states:
                cache[state.name] = _cut(cache[state.name], state, chunk.start)
            others = {name: _line(array, row, self.batch) for name, array in self.others.items()}
            results = self._run([chunk], len(chunk.tokens), chunk.start + len(chunk.tokens), {**others, **cache})
            self._keep(cache, results)
            outputs.append(self._logits(results)[0])
        return outputs

    def _in_place(self, chunks: Sequence[Chunk], width: int | None) -> list[Array]:
        longest = max((len(chunk.tokens) for chunk in chunks), default=0)
        results = self._run(chunks, max(width or 0, longest, 1), self.ctx, {**self.others, **self.caches[0]})
        self._keep(self.caches[0], results, chunks)
        logits = self._logits(results)
        return [logits[row][: len(chunk.tokens)] for row, chunk in enumerate(chunks)]

    def _run(self, chunks: Sequence[Chunk], width: int, columns: int, cache: Arrays) -> Arrays:
        """One run: every input by its role; a mask of two dimensions has ones up to each sequence's end."""
        ids, positions = np.zeros((len(chunks), width), np.int64), np.full((len(chunks), width), -1, np.int64)
        mask = np.zeros((len(chunks), columns), np.int64)
        for row, chunk in enumerate(chunks):
            count = len(chunk.tokens)
            ids[row, :count] = chunk.tokens
            positions[row, :count] = np.arange(chunk.start, chunk.start + count)
            mask[row, : chunk.start + count if count else self.lengths[row]] = 1
        by_role = {
            Role.TOKEN_IDS: ids,
            Role.BATCH_INDEX: np.arange(len(chunks))[:, None],
            Role.LOGITS_TO_KEEP: np.zeros((width, 1), np.int64),
        }
        feeds: Arrays = {}
        for value in self.model.graph.inputs:
            name = value.name or ""
            if value.is_initializer():
                continue
            role = self.roles.get(name, Role.OTHER)
            found = cache[name] if name in cache else by_role.get(role)
            if role is Role.POSITIONS:
                starts = isinstance(self._batch, Expr) and dims_of(value) == (self._batch,)
                found = positions[:, 0] if starts else _shaped_positions(value, positions)
            elif role is Role.ATTENTION_MASK:
                found = _shaped_mask(value, mask, positions)
            elif role is Role.EMBEDDINGS:
                found = _embedded(value, ids)
            if found is None:
                raise UsageError(f"a stepper cannot feed {name!r}", found=role.value)
            assert value.dtype is not None
            feeds[name] = found if name in cache else found.astype(value.dtype.numpy())
        return self.session.run(feeds)

    def _logits(self, results: Mapping[str, Array]) -> Array:
        value = logits_output(self.model, self.states)
        assert value is not None, "a decoder has an output beside its states"
        return results[value.name or ""]

    def _keep(self, cache: Arrays, results: Mapping[str, Array], chunks: Sequence[Chunk] = ()) -> None:
        for state in self.states:
            assert state.output is not None
            new = results[state.output.name or ""]
            if state.layout is Layout.DELTA and state.in_place:
                new = _place(cache[state.name], new, self._axes(state), chunks)
            elif state.layout is Layout.DELTA:
                new = np.concatenate([cache[state.name], new], axis=state.axis or 0)
            cache[state.name] = new

    def _empty(self, batch: int) -> Arrays:
        empty: Arrays = {}
        for state in self.states:
            assert state.input is not None and state.input.dtype is not None
            dims = list(dims_of(state.input) or ())
            sizes = [_size(dim, batch) for dim in dims]
            if state.axis is not None and state.layout is not Layout.RECURRENT:
                fixed = dims[state.axis]
                sizes[state.axis] = (fixed if isinstance(fixed, int) else self.ctx) if self.in_place else 0
            empty[state.name] = np.zeros(sizes, state.input.dtype.numpy())
        return empty


def _line(array: Array, row: int, batch: int) -> Array:
    """What one sequence is fed of an array with a line for each; the whole of any other."""
    return array[row : row + 1] if array.ndim and len(array) == batch else array


def _shaped_positions(value: ir.Value, positions: Array) -> Array:
    """``positions`` in the rank that the input has; one for all rows, or the first alone, where it holds no more."""
    shape = list(value.shape or ())
    if len(shape) >= 2:
        return np.broadcast_to(positions, (*(int(str(dim)) for dim in shape[:-2]), *positions.shape))
    if not shape or shape == [1]:
        return positions[0, :1].reshape([1] * len(shape))
    return positions[0]


def _shaped_mask(value: ir.Value, mask: Array, positions: Array) -> Array:
    """``mask`` over keys, or, where the input has a line for each query, which of them each query sees."""
    rank = len(value.shape or ())
    if rank < 3:
        return mask
    seen = (mask[:, None] != 0) & (np.arange(mask.shape[1]) <= positions[:, :, None])
    seen = seen.reshape(len(seen), *[1] * (rank - 3), *seen.shape[1:])
    if value.dtype is None or not value.dtype.is_floating_point():
        return seen
    return np.where(seen, 0.0, np.finfo(value.dtype.numpy()).min)


def _embedded(value: ir.Value, ids: Array) -> Array:
    """Rows of one random table for all tokens: the same token is the same row in every graph."""
    width = int(str((value.shape or (0,))[-1]))
    return np.random.default_rng(width).standard_normal((int(ids.max(initial=0)) + 1, width))[ids]


def _size(dim: Dim | None, batch: int) -> int:
    return dim if isinstance(dim, int) else batch


def _cut(cache: Array, state: State, length: int) -> Array:
    return np.take(cache, np.arange(length), axis=state.axis) if state.gains_row_per_token else cache


def _place(cache: Array, new: Array, axes: tuple[int, int], chunks: Sequence[Chunk]) -> Array:
    """The host's own write: each sequence's new rows at its positions."""
    held, fresh = np.moveaxis(cache.copy(), axes, (0, 1)), np.moveaxis(new, axes, (0, 1))
    for row, chunk in enumerate(chunks):
        held[row, chunk.start : chunk.start + len(chunk.tokens)] = fresh[row, : len(chunk.tokens)]
    return np.moveaxis(held, (0, 1), axes)


TOLD = frozenset(
    (Role.TOKEN_IDS, Role.EMBEDDINGS, Role.POSITIONS, Role.ATTENTION_MASK, Role.BATCH_INDEX, Role.LOGITS_TO_KEEP)
)
"""Roles of the inputs that a chunk tells."""
_BY_POSITION = (Layout.SCATTER, Layout.DELTA)
_TOKENS = (Role.TOKEN_IDS, Role.EMBEDDINGS)
