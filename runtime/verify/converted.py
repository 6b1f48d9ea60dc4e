"""Plays texts through a graph and its conversion to another layout, chunk by chunk, and compares every logit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from ...ir.core.errors import UsageError
from ...ir.interface.roles import Role
from ...ir.states import Pairing
from ..decode.host import Host
from ..decode.inputs import UnknownSize
from ..decode.step import Chunk, Step
from ..session.session import RunError
from ..session.subject import Subject
from .closeness import OTHER_SUMS
from .contract import Contract
from .report import CaseReport
from .text import Text, line_of, untold

CTX = 24  # rows of a cache that leaves their number open
WIDTH = 8  # tokens of a run in which rows are padded
BATCHES = (1, 3)
UNEVEN = (5, 1, 2, 5, 3, -3, 4, 1, -2, 5)
"""Tokens of each chunk; negative: so many are taken back first, for they were wrong, and fed anew."""


class Unplayable(UsageError):
    """What these graphs take cannot be fed chunk by chunk."""


def changes_layout(before: Subject, after: Subject, contract: Contract) -> bool:
    """True where a state that both graphs carry is updated in another way in each."""
    old = {s.name: s.layout for s in before.states if s.pairing is Pairing.BOTH}
    new = {contract.old_input(s.name): s.layout for s in after.states if s.pairing is Pairing.BOTH}
    return any(name in old and old[name] is not layout for name, layout in new.items())


def play(before: Subject, after: Subject, contract: Contract, name: str, seed: int) -> Iterator[CaseReport]:
    """Feeds both graphs the same texts from empty states, for one sequence and for several of unequal length.

    Raises Unplayable, before anything is yielded, where the original does not take such runs, and KernelMissing.
    """
    capacity = [size for s in (before, after) if (size := s.capacity) is not None]
    ctx = min(capacity, default=CTX)
    original, player = Host(before, ctx=ctx), Host(Subject.of(after.model, after.name), ctx=ctx)  # as it is by itself
    for host in (original, player):
        host.open()
        ctx = min(ctx, host.room) if host.fixed_past else ctx
    length, batch = (next((n for s in (before, after) if (n := s.fixed(at)) is not None), None) for at in (1, 0))
    counts = UNEVEN if length is None else (length,) * len(UNEVEN)
    ends = itertools.accumulate(abs(count) for count in counts)
    widths = [abs(count) for count, end in zip(counts, ends, strict=True) if end < ctx]
    if not widths:
        raise Unplayable("the caches are too short for a chunk")
    ids = next(iter(before.tables.values()), 64)
    for rows in (batch,) if batch is not None else BATCHES:
        tokens = np.random.default_rng([seed, rows]).integers(0, ids, (rows, sum(widths)))
        text = Text(original, tokens, contract, OTHER_SUMS)
        try:
            text.read_apart(widths)
            yield _report(text, player, counts, name)
        except (RunError, UsageError, UnknownSize) as error:
            raise Unplayable(error.what) from error


def _report(text: Text, player: Host, counts: tuple[int, ...], name: str) -> CaseReport:
    """The logits of all chunks, one output of one case."""
    uneven = _uneven(text, player)
    title = f"batch {len(text.tokens)}, chunk by chunk{', rows of unequal length' if uneven else ''}"
    for row, part in enumerate(lines := text.lines(player)):
        given = untold(player, text.contract.chain.adapt_inputs(text.original.first(len(text.tokens), 1)))
        caches, others = part.empty(), line_of(given, row, len(lines))
        for step, keep in _script(part, player, counts, uneven=uneven):
            feed = part.adapted(player, player.feeds(caches, step, others), step)
            try:
                outputs = player.session.run(feed)
            except RunError as error:
                return CaseReport(name, title, failed=error.what)
            player.take(caches, step, outputs)
            part.hold(player, outputs, step, keep)
    return CaseReport(name, title, text.differences(player))


def _uneven(text: Text, player: Host) -> bool:
    """Whether sequences may be of unequal length, and a run holds padding for it."""
    from ...ir.proof.whole_run import scales_of_runs

    placed = player.subject.inputs(Role.POSITIONS)
    own = bool(placed) and all(len(value.shape or ()) >= 2 for value in placed)
    told = player.subject.masks or all(state.in_place for state in player.changing)
    apart = own and told and player.pads and player.length in (None, 1) and text.original.length in (None, 1)
    kept = text.whole and not text.contract.changes_logits and not scales_of_runs(text.original.subject.model)
    return len(text.tokens) > 1 and len(text.lines(player)) == 1 and apart and kept


def _script(text: Text, player: Host, counts: tuple[int, ...], *, uneven: bool) -> Iterator[tuple[Step, list[int]]]:
    """Chunks until the text ends, and how many tokens of each row are the text's; an uneven row idles now and then."""
    rewinds = all(state.is_movable for state in player.changing)
    other = int(text.tokens.max()) + 1
    lengths = np.zeros(len(text.tokens), np.int64)
    for number, (count, following) in enumerate(itertools.zip_longest(counts, counts[1:], fillvalue=0)):
        lengths = np.maximum(lengths + min(count, 0) * rewinds, 0)
        asked = [_count(abs(count), row, number, uneven=uneven) for row in range(len(lengths))]
        if (lengths + asked > len(text)).any():
            return
        wrong, chunks, keep = max(-following, 0) * rewinds, list[Chunk](), list[int]()
        for row, (start, many) in enumerate(zip(lengths.tolist(), asked, strict=True)):
            tokens = text.tokens[row, start : start + many].copy()
            keep.append(max(many - wrong, 0))
            tokens[keep[-1] :] = (tokens[keep[-1] :] + 1) % other
            chunks.append(Chunk(tokens, start))
        width = (player.length or WIDTH) if uneven else 0
        yield Step.of(chunks, width=width, lengths=lengths), keep
        lengths = lengths + asked


def _count(asked: int, row: int, number: int, *, uneven: bool) -> int:
    """How many tokens a row takes in a step: as asked, or now and then fewer, down to none."""
    return max(asked - (row + number) % 3, 0 if number else 1) if uneven else asked
