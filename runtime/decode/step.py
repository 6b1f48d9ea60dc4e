"""A step is what one run of a decoder takes: tokens at positions, rows of the batch, what the caches hold before it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...ir.interface.roles import Role
from ...ir.symbolic.symbols import dims_of
from ..session.subject import Subject
from ..speculate.plan import PAD_POSITION, PAD_TOKEN
from .caches import CacheBinding, CachePolicy

HIDDEN_POSITION = 1  # of padding that a mask hides: transformers fills position_ids with 1 there, any row will do
ANGLES = 3  # leading rows of M-RoPE positions (time, height, width) where a type leaves their number open


@dataclass(frozen=True)
class Chunk:
    """The tokens that one row takes in a run, from position ``start`` on; none for an idle row."""

    tokens: Sequence[int] | np.ndarray = ()
    start: int = 0


@dataclass(frozen=True)
class Step:
    """One run of a batch.

    Attributes:
        ids: INT64 ``[rows, width]``.
        positions: INT64 ``[rows, width]``, -1 for padding, all -1 in an idle row.
        past: INT64 ``[rows]``: how many tokens each row holds before the run; fewer than before is a rewind.
        rows: INT64 ``[rows]``: the cache's rows, where the graph chooses among them.
        logits: How many of the last rows get logits, where an input tells.
    """

    ids: np.ndarray
    positions: np.ndarray
    past: np.ndarray
    rows: np.ndarray
    logits: int

    @classmethod
    def at(
        cls, ids: np.ndarray, positions: np.ndarray, past: np.ndarray, rows: Sequence[int] | np.ndarray | None = None
    ) -> Step:
        """A step over these arrays, of rows 0 … n-1 unless told."""
        return cls(ids, positions, past, np.arange(len(ids)) if rows is None else np.asarray(rows), ids.shape[1])

    @classmethod
    def of(
        cls,
        chunks: Sequence[Chunk],
        *,
        width: int = 0,
        lengths: Sequence[int] | np.ndarray | None = None,
        rows: Sequence[int] | None = None,
    ) -> Step:
        """Chunks side by side, padded on the right to the longest or to ``width``; ``lengths`` is what rows hold."""
        width = max([width, 1, *(len(chunk.tokens) for chunk in chunks)])
        ids = np.full((len(chunks), width), PAD_TOKEN, np.int64)
        positions = np.full((len(chunks), width), PAD_POSITION, np.int64)
        past = np.array([chunk.start for chunk in chunks], np.int64)
        for at, chunk in enumerate(chunks):
            count = len(chunk.tokens)
            ids[at, :count], positions[at, :count] = chunk.tokens, np.arange(chunk.start, chunk.start + count)
            if not count and lengths is not None:
                past[at] = lengths[at]
        return cls.at(ids, positions, past, rows)

    @property
    def held(self) -> int:
        """The rows of caches that grow, as long as the longest text of the batch."""
        return int(self.past.max(initial=0))

    @property
    def width(self) -> int:
        """How many tokens the run takes."""
        return self.ids.shape[1]

    @property
    def count(self) -> int:
        """How many tokens the row with the most has."""
        return int(self.counts.max(initial=0))

    @property
    def valid(self) -> np.ndarray:
        """BOOL ``[rows, width]``: true for tokens, false for padding."""
        return self.positions >= 0

    @property
    def counts(self) -> np.ndarray:
        """INT64 ``[rows]``: how many tokens each row has."""
        return self.valid.sum(axis=1)


class Writing(enum.Enum):
    """What tells a graph where new rows go, and so how its padding looks."""

    POSITIONS = "positions"  # -1 is written nowhere that counts
    LENGTHS = "lengths"  # behind the row's length, padding among the tokens: nothing can hide it
    BEHIND = "behind"  # at the end of a cache that grows; a mask hides padding


@dataclass
class Interface:
    """How a graph takes a step: the inputs that a step tells, by role, and where the run's keys lie.

    Attributes:
        room: The rows of caches that are written in place, or of a past of fixed length; None where caches grow freely.
    """

    subject: Subject
    writing: Writing
    room: int | None = None

    def __post_init__(self) -> None:
        values, roles = self.subject.model.graph.inputs, self.subject.roles
        self.starts = frozenset(v.name or "" for v in values if self.subject.is_start(v))  # each row is written from
        self.inputs = {n: v for v in values if (n := v.name or "") in self.starts or roles[n] in TOLD}

    @classmethod
    def of(cls, subject: Subject, bindings: Mapping[str, CacheBinding], ctx: int = 0) -> Interface:
        """The interface of a graph whose caches are bound so; ``ctx`` bounds what the caches have room for."""
        held = [b for b in bindings.values() if b.axis is not None and b.policy is not CachePolicy.CONSTANT]
        in_place = [b for b in held if b.in_place]
        at = Writing.POSITIONS if in_place or subject.written_at is not None else Writing.BEHIND
        writing = Writing.LENGTHS if in_place and all(b.fused for b in held) else at
        alike = [b for b in bindings.values() if b.axis is not None and b.in_place is (writing is not Writing.BEHIND)]
        rows = [size for b in alike if b.rewinds and (size := b.sizes[b.axis or 0]) is not None]
        found = min(rows, default=ctx or None) if writing is not Writing.BEHIND else max(rows, default=None)
        return cls(subject, writing, found)

    @property
    def by_position(self) -> bool:
        """Whether a cache has the row of the token's position, so that -1 tells padding."""
        return self.subject.pads_by_position

    def feeds(self, step: Step) -> dict[str, np.ndarray]:
        """Every input that the step tells, in its own type and rank."""
        return {name: self.feed(value, step) for name, value in self.inputs.items()}

    def feed(self, value: ir.Value, step: Step) -> np.ndarray:
        """One input that a step tells."""
        made = step.past if value.name in self.starts else TOLD[self.subject.roles[value.name or ""]](self, value, step)
        return np.asarray(made, value.dtype.numpy() if value.dtype is not None else None)

    def keys(self, step: Step) -> np.ndarray:
        """BOOL ``[rows, keys]``: the keys that are tokens of the row once the run has written its own."""
        if self.writing is Writing.LENGTHS:
            # GroupQueryAttention (onnxruntime 1.32) wants seqlens_k + 1 >= sequence_length: padding is counted too
            total = int(step.past.max()) + step.width
            return np.arange(total) < (step.past + step.width)[:, None]
        if self.writing is Writing.POSITIONS and self.by_position:
            return np.arange(self.room or 0) < (step.past + step.counts)[:, None]
        if self.writing is Writing.POSITIONS:  # in the order of the columns, from an index on
            keys = np.arange(self.room or 0) < step.past[:, None]
            for row, start in enumerate(step.past):
                keys[row, start : start + step.width] = step.valid[row, : max(0, keys.shape[1] - start)]
            return keys
        old = np.arange(step.held) >= step.held - step.past[:, None]  # shorter texts begin later
        hidden = np.zeros((len(step.ids), max(0, (self.room or 0) - step.held)), bool)
        return np.concatenate([hidden, old, step.valid], axis=1)

    def queries(self, step: Step) -> np.ndarray:
        """INT64 ``[rows, width]``: the key that each token is itself."""
        columns = np.arange(step.width)
        if self.writing is Writing.BEHIND:
            return np.tile(max(self.room or 0, step.held) + columns, (len(step.ids), 1))
        if self.writing is Writing.POSITIONS and not self.by_position:
            return step.past[:, None] + columns
        return np.where(step.valid, step.positions, step.past[:, None])


def positions_of(make: Interface, value: ir.Value, step: Step) -> np.ndarray:
    """-1 for padding where positions say what is written, else any position that a table has."""
    dims = (None,) * 2 if (found := dims_of(value)) is None else found
    if len(dims) < 2:
        size = next((dim for dim in dims if isinstance(dim, int)), step.width if dims else 1)
        return (step.past[0] + np.arange(size)).reshape([size] * len(dims))
    filled = step.positions if make.by_position else np.where(step.valid, step.positions, HIDDEN_POSITION)
    leading = [dim if isinstance(dim, int) else ANGLES for dim in dims[:-2]]
    filled = filled[: dims[-2]] if isinstance(dims[-2], int) else filled  # one row may serve the batch
    return np.broadcast_to(filled, (*leading, *filled.shape))


def mask_of(make: Interface, value: ir.Value, step: Step) -> np.ndarray:
    """Rank 2: which keys are real; more: which of them each token sees, as truth values or as what is added.

    A padded token sees its own key, and so no row of -inf that a softmax makes NaN of.
    """
    dims, keys = dims_of(value) or (None,) * 2, make.keys(step)
    if isinstance(declared := dims[-1], int):
        keys = np.pad(keys[:, :declared], ((0, 0), (0, max(0, declared - keys.shape[1]))))
    if len(dims) == 2:
        return keys
    own, columns = make.queries(step)[:, :, None], np.arange(keys.shape[1])
    seen = (keys[:, None, :] | (columns == own)) & (columns <= own)
    seen = seen.reshape(len(seen), *[1] * (len(dims) - 3), *seen.shape[1:])
    if value.dtype is not None and value.dtype.is_floating_point():
        return np.where(seen, 0.0, float(np.finfo(value.dtype.numpy()).min))
    return seen


def embedded(width: int, ids: np.ndarray) -> np.ndarray:
    """Rows of one random table where a graph takes embeddings: the same token is the same row in every graph."""
    return np.random.default_rng(width).standard_normal((int(ids.max(initial=0)) + 1, width))[ids]


def _embeddings(make: Interface, value: ir.Value, step: Step) -> np.ndarray:
    width = (dims_of(value) or (None,))[-1]
    return embedded(width if isinstance(width, int) else 1, step.ids)


def _row_numbers(make: Interface, value: ir.Value, step: Step) -> np.ndarray:
    return step.rows.reshape(-1, *[1] * (len(dims_of(value) or (None,) * 2) - 1))


def _logits_to_keep(make: Interface, value: ir.Value, step: Step) -> np.ndarray:
    """The number, and where the shape tells it a shape of that length."""
    return np.full([dim if isinstance(dim, int) else step.logits for dim in dims_of(value) or ()], step.logits)


def lengths_of(make: Interface, value: ir.Value, step: Step) -> np.ndarray:
    """The rows' lengths after the run; of an input whose length alone is read, zeros as long as the cache."""
    dims = dims_of(value) or ()
    if value.uses() and all(use.node.op_type == "Shape" for use in value.uses()):
        return np.zeros([dim if isinstance(dim, int) else make.keys(step).shape[1] for dim in dims])
    sizes = [dim if isinstance(dim, int) else len(step.ids) for dim in dims]
    return np.resize(step.past + step.counts, sizes) if sizes else np.asarray(make.keys(step).shape[1])


TOLD: Mapping[Role, Callable[[Interface, ir.Value, Step], np.ndarray]] = {
    Role.TOKEN_IDS: lambda make, value, step: step.ids,
    Role.EMBEDDINGS: _embeddings,
    Role.POSITIONS: positions_of,
    Role.ATTENTION_MASK: mask_of,
    Role.BATCH_INDEX: _row_numbers,
    Role.LOGITS_TO_KEEP: _logits_to_keep,
    Role.CONTEXT_LENGTHS: lengths_of,
}
"""Roles of the inputs that a step tells, and what they are fed."""
