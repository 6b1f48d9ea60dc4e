"""Plays texts through a graph and its conversion to another layout, chunk by chunk, and compares every logit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.core.errors import UsageError
from ...ir.program.contracts.heads import words_left
from ...ir.states import Pairing
from ..decode.cases import Case, Padding
from ..decode.host import Array
from ..decode.inputs import UnknownSize, build_inputs
from ..decode.step import Chunk
from ..decode.stepper import Stepper, untold
from ..session.in_place import InPlaceSession
from ..session.legalize import legalized
from ..session.session import RunError
from ..session.subject import Subject
from .compare import Difference, compare, ulp_tolerance
from .contract import Contract
from .report import CaseReport

OTHER_SUMS = 2e-6  # what another length of the cache may change
CTX = 24  # rows of a cache that leaves their number open
WIDTH = 8  # tokens of a run in which rows are padded
BATCHES = (1, 3)
UNEVEN = (5, 1, 2, 5, 3, -3, 4, 1, -2, 5)
"""Tokens of each chunk; negative: so many are taken back first, and fed anew."""


class Unplayable(UsageError):
    """What these graphs take cannot be fed chunk by chunk."""


class _FewerLogits(Exception):
    """The original gives logits of the last rows alone, which padding would be among."""


def changes_layout(before: Subject, after: Subject, contract: Contract) -> bool:
    """True where a state that both graphs carry is updated in another way in each."""
    old = {s.name: s.layout for s in before.states if s.pairing is Pairing.BOTH}
    new = {contract.old_input(s.name): s.layout for s in after.states if s.pairing is Pairing.BOTH}
    return any(name in old and old[name] is not layout for name, layout in new.items())


def play(before: Subject, after: Subject, contract: Contract, name: str, seed: int) -> Iterator[CaseReport]:
    """Feeds both graphs the same texts from empty states, for one sequence and for several of unequal length.

    Raises Unplayable, before anything is yielded, where the original does not take such runs, and KernelMissing.
    """
    sessions = tuple(InPlaceSession(legalized(s.model).model, s.name) for s in (before, after))
    fixed = next((size for s in (before, after) if (size := s.fixed(0)) is not None), None)
    for batch in (fixed,) if fixed is not None else BATCHES:
        for answers in (("", ""), *_tapped(after, contract)):
            yield _Text(before, after, contract, sessions[0], sessions[1], batch, seed, answers).report(name)


def _tapped(after: Subject, contract: Contract) -> list[tuple[str, str]]:
    """Values inside the original, and the outputs of the result that hold them."""
    inner = {value.name for value in contract.chain.observed}
    names = [value.name or "" for value in after.model.graph.outputs]
    return [(old, name) for name in names if (old := contract.old_output(name)) in inner]


@dataclass(eq=False)
class _Text:
    """One batch of texts and the two graphs that they are played through."""

    before: Subject
    after: Subject
    contract: Contract
    first: InPlaceSession
    second: InPlaceSession
    batch: int
    seed: int
    answers: tuple[str, str] = ("", "")

    def report(self, name: str) -> CaseReport:
        """The logits of all chunks, one output of one case."""
        left, right = self._steppers()
        if not self.uneven(left, right):
            return self._compared(name, left, right, alike=True)
        try:
            return self._compared(name, left, right, alike=False)
        except _FewerLogits:
            left, right = self._steppers()
            return self._compared(name, left, right, alike=True)

    def uneven(self, left: Stepper, right: Stepper) -> bool:
        """Whether sequences may be of unequal length, and a run holds padding for it."""
        apart = left.separates and right.separates and self.length in (None, 1)
        return self.batch > 1 and apart and not self.contract.changes_logits

    @property
    def length(self) -> int | None:
        """How many tokens a run takes, None where any number will do."""
        return next((size for s in (self.before, self.after) if (size := s.fixed(1)) is not None), None)

    def _compared(self, name: str, left: Stepper, right: Stepper, *, alike: bool) -> CaseReport:
        title = f"batch {self.batch}, chunk by chunk" + ("" if alike else ", rows of unequal length")
        expected: list[Array] = []
        found, words = list[Array](), words_left(self.contract.chain.links)
        for step in self._script(left, right, alike):
            try:
                ours = left.step(step)
            except (RunError, UsageError, UnknownSize) as error:
                raise Unplayable(error.what) from error
            try:
                theirs = right.step(step, 0 if alike else self.length or WIDTH)
            except RunError as error:
                return CaseReport(name, title, failed=error.what)
            for a, b, chunk in zip(ours, theirs, step, strict=True):
                if len(a) < len(chunk.tokens) and not alike:
                    raise _FewerLogits
                kept = min(len(a), len(b)) if chunk.tokens else 0
                ours_left = a if words is None or self.answers[0] or not len(a) else a[:, list(words)]
                expected.append(ours_left[len(a) - kept :])
                found.append(b[len(b) - kept :])
        if not expected:
            raise Unplayable("the caches are too short for a chunk")
        return CaseReport(name, title, (_difference(self.answers[1] or "logits", expected, found),))

    def _steppers(self) -> tuple[Stepper, Stepper]:
        first, second = self.answers
        return self._stepper(self.before, self.first, first), self._stepper(self.after, self.second, second)

    def _stepper(self, subject: Subject, session: InPlaceSession, answer: str) -> Stepper:
        capacity = [size for s in (self.before, self.after) if (size := s.capacity) is not None]
        ctx = min(capacity, default=CTX)
        case = Case(self.batch, 1, Padding.FULL, np.zeros((self.batch, 1), np.int64), self.seed)
        try:
            built = build_inputs(subject, case)
        except UnknownSize as error:
            raise Unplayable(error.what) from error
        return Stepper(subject.model, self.batch, ctx, others=untold(subject, built), session=session, answer=answer)

    def _script(self, left: Stepper, right: Stepper, alike: bool) -> Iterator[list[Chunk]]:
        """Chunks until the cache is full; where rows differ, one of them is idle now and then."""
        rng = np.random.default_rng([self.seed, self.batch])
        ids = next(iter(self.before.tables.values()), 64)
        rewinds = all(state.is_movable for s in (left, right) for state in s.states)
        lengths = [0] * self.batch
        for number, count in enumerate(UNEVEN if self.length is None else (self.length,) * len(UNEVEN)):
            back = -count if count < 0 and rewinds else 0
            counts = [_count(abs(count), row, number, alike) for row in range(self.batch)]
            starts = [max(length - back, 0) for length in lengths]
            if any(start + many >= min(left.ctx, right.ctx) for start, many in zip(starts, counts, strict=True)):
                return
            yield [
                Chunk(tuple(rng.integers(0, ids, many).tolist()), start)
                for start, many in zip(starts, counts, strict=True)
            ]
            lengths = [start + many if many else old for start, many, old in zip(starts, counts, lengths, strict=True)]


def _count(asked: int, row: int, number: int, alike: bool) -> int:
    """How many tokens a row takes in a step: as asked, or now and then fewer, down to none."""
    return asked if alike else max(asked - (row + number) % 3, 0 if number else 1)


def _difference(name: str, expected: Sequence[Array], found: Sequence[Array]) -> Difference:
    ours, theirs = (np.concatenate([array for array in arrays if len(array)]) for arrays in (expected, found))
    return compare(name, ours, theirs, max(OTHER_SUMS, 4 * ulp_tolerance(ours)))
