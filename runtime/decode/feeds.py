"""What a run of a decoder graph is fed: tokens at positions, and what inputs of other roles follow from them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import OnnxPassesError
from ...ir.interface.roles import Role
from ...ir.symbolic.symbols import dims_of
from .holdings import Hold
from .state_session import GraphSession


class Writing(enum.Enum):
    """What tells a graph where new rows go, and so how its padding looks."""

    POSITIONS = "positions"  # -1 is written nowhere that counts
    LENGTHS = "lengths"  # behind the row's length; padding lies behind the tokens
    BEHIND = "behind"  # at the end of a cache that grows; a mask hides padding


class NotDecodable(OnnxPassesError):
    """A program that cannot be decoded with: no tokens in, no logits out, a state that cannot be kept."""


@dataclass
class Run:
    """One run's tokens, and what the inputs of other roles follow from."""

    graph: GraphSession
    ids: np.ndarray
    positions: np.ndarray
    rows: list[int]
    lengths: np.ndarray
    ctx: int
    writing: Writing

    def feeds(self) -> dict[str, np.ndarray]:
        """Every input of the graph that is no state."""
        roles = self.graph.subject.roles
        return {name: _FEEDS[roles[name]](self, self.graph.inputs[name]) for name in self.graph.free}

    @property
    def counts(self) -> np.ndarray:
        """How many tokens each row of the run has."""
        return (self.positions >= 0).sum(axis=1)

    @property
    def width(self) -> int:
        """How many tokens the run takes."""
        return self.ids.shape[1]

    @property
    def past(self) -> np.ndarray:
        """How many tokens each row of the run holds before it."""
        return self.lengths[self.rows]

    def keys(self) -> np.ndarray:
        """BOOL ``[rows, keys]``: the keys that are tokens of the row once the run has written its own."""
        if self.writing is Writing.POSITIONS:
            return np.arange(self.ctx)[None, :] < (self.past + self.counts)[:, None]
        if self.writing is Writing.LENGTHS:
            return np.arange(int(self.past.max()) + self.width)[None, :] < (self.past + self.width)[:, None]
        held = int(self.lengths.max())
        room = next((h.sizes[h.axis] for h in self.graph.holdings.values() if h.hold is Hold.PADDED and h.axis), None)
        old = np.arange(held)[None, :] >= held - self.past[:, None]  # shorter texts begin later
        new = np.arange(self.width)[None, :] < self.counts[:, None]
        hidden = np.zeros((len(self.rows), (room or held) - held), bool)
        return np.concatenate([hidden, old, new], axis=1)

    def queries(self) -> np.ndarray:
        """INT64 ``[rows, width]``: the key that each token is itself."""
        if self.writing is not Writing.BEHIND:
            return np.where(self.positions >= 0, self.positions, self.past[:, None])
        total = self.keys().shape[1]
        return np.tile(np.arange(total - self.width, total), (len(self.rows), 1))


def _positions(run: Run, value: ir.Value) -> np.ndarray:
    """-1 for padding where positions say what is written, else any position."""
    told = run.writing is Writing.POSITIONS and run.graph.subject.pads_by_position
    filled = run.positions if told else np.where(run.positions >= 0, run.positions, run.past[:, None])
    rank = len(value.shape) if value.shape is not None else 2
    if rank >= 2:
        return np.broadcast_to(filled, (*[_size(value, at, 3) for at in range(rank - 2)], *filled.shape))
    dims = dims_of(value) or (None,)
    return run.past if dims[0] == _batch_dim(run) else run.past[0] + np.arange(run.width)


def _batch_dim(run: Run) -> object:
    ids = run.graph.inputs[run.graph.subject.inputs(Role.TOKEN_IDS)[0].name or ""]
    return (dims_of(ids) or (None,))[0]


def _size(value: ir.Value, axis: int, other: int) -> int:
    dim = (dims_of(value) or ())[axis]
    return dim if isinstance(dim, int) else other


def _mask(run: Run, value: ir.Value) -> np.ndarray:
    """Rank 2: which keys are real; more: which of them each token sees, as truth values or as what is added."""
    keys = run.keys()
    rank = len(value.shape) if value.shape is not None else 2
    if rank == 2:
        return np.pad(keys, ((0, 0), (0, max(0, _size(value, 1, 0) - keys.shape[1]))))
    own = run.queries()[:, :, None]
    allowed = (keys[:, None, :] | (np.arange(keys.shape[1]) == own)) & (np.arange(keys.shape[1]) <= own)
    allowed = allowed.reshape(len(run.rows), *[1] * (rank - 3), *allowed.shape[1:])
    if value.dtype is not None and value.dtype.is_floating_point():
        return np.where(allowed, 0.0, float(np.finfo(value.dtype.numpy()).min))
    return allowed


def _kept_logits(run: Run, value: ir.Value) -> np.ndarray:
    """As many as the run has tokens, unless the shape fixes their number."""
    rank = len(value.shape) if value.shape is not None else 0
    count = _size(value, 0, run.width) if rank else run.width
    return np.full((count, *[1] * (rank - 1)), count, np.int64) if rank else np.asarray(run.width)


def _zeros(run: Run, value: ir.Value) -> np.ndarray:
    sizes = [dim if isinstance(dim, int) else None for dim in dims_of(value) or ()]
    usual = (len(run.rows), run.width)
    filled = [size if size is not None else usual[at] if at < 2 else 1 for at, size in enumerate(sizes)]
    return np.zeros(filled, np.int64)


def _no_feed(run: Run, value: ir.Value) -> np.ndarray:
    role = run.graph.subject.roles[value.name or ""].value
    raise NotDecodable("decoding has nothing to feed here", where=f"{run.graph.name}, input {value.name!r}", found=role)


_FEEDS: Mapping[Role, Callable[[Run, ir.Value], np.ndarray]] = {
    **dict.fromkeys(Role, _no_feed),
    Role.TOKEN_IDS: lambda run, value: run.ids,
    Role.POSITIONS: _positions,
    Role.ATTENTION_MASK: _mask,
    Role.BATCH_INDEX: lambda run, value: np.asarray(run.rows)[:, None],
    Role.LOGITS_TO_KEEP: _kept_logits,
    Role.CONTEXT_LENGTHS: lambda run, value: np.zeros(_size(value, 0, run.ctx)),
    Role.BRANCH: _zeros,
    Role.IMAGE_INDEX: _zeros,
    Role.OTHER: _zeros,
}
