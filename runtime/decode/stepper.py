"""Steps a batch of sequences through one graph, chunk by chunk, rows of unequal length, idle and taken back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import UsageError
from ...ir.interface.roles import Role
from ...ir.states import Pairing
from ..session.session import Session
from ..session.subject import Subject
from .host import Array, Arrays, Caches, Host
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
        session: Session | None = None,
        answer: str = "",
    ) -> None:
        self.host = Host(Subject.of(model, "graph"), session or Session(model), ctx, guesses=False)
        found = self.host.subject.states
        self.states = [s for s in found if s.pairing is Pairing.BOTH and s.traits.changes]
        self.batch, self.ctx, self.others = batch, ctx, dict(others or {})
        self.answer = answer or self.host.answer
        self.in_place = any(state.in_place for state in self.states)
        self.caches = [Caches() for _ in range(1 if self.in_place else batch)]
        self.lengths = [0] * batch

    def step(self, chunks: Sequence[Chunk], width: int | None = None) -> list[Array]:
        """Runs one chunk for each sequence; gives each sequence's logits ``[len(tokens), vocabulary]``.

        Raises UsageError for a number of chunks other than the batch, or a start behind the sequence's end.
        """
        if len(chunks) != self.batch:
            raise UsageError("a step takes one chunk a sequence", found=len(chunks), wanted=self.batch)
        for chunk, length in zip(chunks, self.lengths, strict=True):
            if len(chunk.tokens) and chunk.start > length:
                raise UsageError("a chunk starts behind the end", found=chunk.start, wanted=f"at most {length}")
        if self.in_place:
            logits = self._run(self.caches[0], Step.of(chunks, width=width or 0, lengths=self.lengths), self.others)
            found = [logits[row][: len(chunk.tokens)] for row, chunk in enumerate(chunks)]
        else:
            found = [self._alone(row, chunk) for row, chunk in enumerate(chunks)]
        for row, chunk in enumerate(chunks):
            if len(chunk.tokens):
                self.lengths[row] = chunk.start + len(chunk.tokens)
        return found

    def _alone(self, row: int, chunk: Chunk) -> Array:
        if not len(chunk.tokens):
            return np.zeros((0, 0), np.float32)
        others = {name: _line(array, row, self.batch) for name, array in self.others.items()}
        return self._run(self.caches[row], Step.of([chunk]), others)[0]

    def _run(self, caches: Caches, step: Step, others: Arrays) -> Array:
        outputs = self.host.run(caches, step, others=others)
        return outputs[self.answer]

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


def _line(array: Array, row: int, batch: int) -> Array:
    """What one sequence is fed of an array with a line for each; the whole of any other."""
    return array[row : row + 1] if array.ndim and len(array) == batch else array
