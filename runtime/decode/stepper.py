"""Steps a batch of sequences through one graph, chunk by chunk, rows of unequal length, idle and taken back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import UsageError
from ...ir.interface.roles import Role
from ...ir.states import Pairing
from ..session.in_place import InPlaceSession
from ..session.subject import Subject
from .host import Array, Arrays, Host
from .kv_cache import Caches
from .step import TOLD, Chunk, Step


class Stepper:
    """One graph, its caches, and a batch of sequences.

    Caches that grow hold one sequence each, so there a step is one run a sequence (a rewind cuts the cache back);
    caches written in place (``ctx`` rows each) hold the whole batch, padded with positions of -1 to the longest chunk,
    or to ``width``. ``others`` feeds inputs that no chunk tells, one line a sequence. ``answer`` is the output whose
    rows a step gives, the logits by default.
    """

    def __init__(
        self,
        model: ir.Model,
        batch: int = 1,
        ctx: int = 0,
        *,
        others: Mapping[str, Array] | None = None,
        session: InPlaceSession | None = None,
        answer: str = "",
    ) -> None:
        self.host = Host(Subject.of(model, "graph"), session or InPlaceSession(model, "graph"), ctx, guesses=False)
        found = self.host.subject.states
        self.states = [s for s in found if s.pairing is Pairing.BOTH and s.traits.changes]
        self.batch, self.ctx, self.others = batch, ctx, dict(others or {})
        self.answer = answer or self.host.answer
        self.in_place = any(state.in_place for state in self.states)
        self.caches = [Caches(batch)] if self.in_place else [Caches(1) for _ in range(batch)]

    @property
    def lengths(self) -> list[int]:
        """How many tokens each sequence has."""
        return [int(length) for caches in self.caches for length in caches.lengths]

    def step(self, chunks: Sequence[Chunk], width: int = 0) -> list[Array]:
        """Runs one chunk for each sequence; gives each sequence's logits ``[len(tokens), vocabulary]``.

        Raises UsageError for a number of chunks other than the batch, or a start behind the sequence's end.
        """
        if len(chunks) != self.batch:
            raise UsageError("a step takes one chunk a sequence", found=len(chunks), wanted=self.batch)
        for chunk, length in zip(chunks, self.lengths, strict=True):
            if len(chunk.tokens) and chunk.start > length:
                raise UsageError("a chunk starts behind the end", found=chunk.start, wanted=f"at most {length}")
        if self.in_place:
            step = Step.of(chunks, width=width, lengths=self.lengths)
            logits = self.host.run(self.caches[0], step, others=self.others)[self.answer]
        else:
            logits = [self._alone(row, chunk) for row, chunk in enumerate(chunks)]
        return [found[: len(chunk.tokens)] for found, chunk in zip(logits, chunks, strict=True)]

    def _alone(self, row: int, chunk: Chunk) -> Array:
        if not len(chunk.tokens):
            return np.zeros((0, 0), np.float32)
        lines = {n: a[row : row + 1] if a.ndim and len(a) == self.batch else a for n, a in self.others.items()}
        return self.host.run(self.caches[row], Step.of([chunk]), others=lines)[self.answer][0]

    @property
    def separates(self) -> bool:
        """True where sequences of one batch may be of unequal length: each runs alone, or has positions of its own."""
        placed = self.host.subject.inputs(Role.POSITIONS)
        own = bool(placed) and all(len(value.shape or ()) >= 2 for value in placed)
        return not self.in_place or (own and all(state.in_place for state in self.states))


def untold(subject: Subject, built: Mapping[str, Array]) -> Arrays:
    """Of a first run's inputs those that no step tells: what comes from outside, and states that are only read."""
    fixed = {state.name for state in subject.states if not state.traits.changes}
    return {name: a for name, a in built.items() if subject.roles[name] not in (*TOLD, Role.STATE) or name in fixed}
