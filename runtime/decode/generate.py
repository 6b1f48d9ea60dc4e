"""Generates texts with a program: proposals verified K at a time, exactly the tokens of plain decoding."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...ir.core.errors import UsageError
from ..speculate.plan import Anchor, Step, accept, commit, limit, plan
from ..speculate.policies import Acceptance, Chooser, Pending, Policy
from ..speculate.proposers import Nothing, Proposer, Source
from .decoder import Decoder
from .host import NotDecodable, Rows
from .sampling import Sampling


@dataclass(frozen=True)
class Settings:
    """What is generated and how.

    Attributes:
        max_new: Tokens that a text gets at most.
        eos: Tokens that end a text; the end token is part of it.
        sampling: How the next token is drawn.
        policy: How K is chosen.
        cost: Seconds of a run for each K, which the goodput policy weighs.
        slots: Texts that run at once; None for as many as the program has rows.
    """

    max_new: int
    eos: frozenset[int] = frozenset()
    sampling: Sampling = field(default_factory=Sampling)
    policy: Policy = Policy.COVER
    cost: Mapping[int, float] = field(default_factory=dict[int, float])
    slots: int | None = None


@dataclass
class Stats:
    """What it took: runs, row-steps with and without a proposal, proposals and how many stood, seconds."""

    tokens: int = 0
    steps: int = 0
    row_steps: int = 0
    without_proposal: int = 0
    proposed: int = 0
    accepted: int = 0
    padded: int = 0
    chosen: Counter[int] = field(default_factory=Counter[int])
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("prefill", "decode", "propose", "dispatch"), 0.0)
    )

    def as_json(self) -> dict[str, Any]:
        """What ``generate --json`` prints as ``stats``."""
        decoded = max(self.row_steps, 1)
        return {
            "tokens": self.tokens,
            "steps": self.steps,
            "row_steps": self.row_steps,
            "tokens_per_step": (self.row_steps + self.accepted) / decoded if self.row_steps else 0.0,
            "steps_without_proposal": self.without_proposal,
            "proposed": self.proposed,
            "accepted": self.accepted,
            "accepted_share": self.accepted / self.proposed if self.proposed else 0.0,
            "padded_tokens": self.padded,
            "chosen_k": {str(k): self.chosen[k] for k in sorted(self.chosen)},
            "ms": {part: round(1e3 * seconds, 3) for part, seconds in self.seconds.items()},
        }


@dataclass
class Text:
    """One text on its way: everything it holds so far, its proposer, and why it ended."""

    number: int
    prompt: int
    tokens: list[int]
    proposer: Proposer
    pending: Pending
    ended: str = ""

    @property
    def new(self) -> list[int]:
        """What was generated."""
        return self.tokens[self.prompt :]

    def add(self, tokens: Sequence[int], settings: Settings) -> None:
        """Takes in generated tokens, and notes where they end the text."""
        self.tokens += tokens
        self.proposer.extend(tokens)
        self.pending.resolve(self.tokens)
        if tokens and tokens[-1] in settings.eos:
            self.ended = "eos"
        elif len(self.tokens) - self.prompt >= settings.max_new:
            self.ended = "length"


@dataclass(frozen=True)
class Generated:
    """The new tokens of each text in the prompts' order, why each ended (eos, length, context), and the statistics.

    ``texts``: what the tokens say, where the prompts were text.
    """

    tokens: list[list[int]]
    ended: list[str]
    stats: Stats
    texts: list[str] = field(default_factory=list[str])

    def to_dict(self) -> dict[str, Any]:
        """As ``generate --json`` prints it."""
        texts = {"texts": self.texts} if self.texts else {}
        return {**texts, "tokens": self.tokens, "ended": self.ended, "stats": self.stats.as_json()}


def generate(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    settings: Settings,
    proposers: Source = Nothing,
    on_step: Callable[[int, int], None] | None = None,
    on_tokens: Callable[[int, Sequence[int]], None] | None = None,
) -> Generated:
    """Generates every prompt's continuation; greedy tokens are those of decoding one by one, whatever K and policy.

    ``on_step`` is told how many tokens there are of how many at most, ``on_tokens`` the tokens that a prompt got as
    they come. Raises UsageError for prompts that the program
    cannot take; the decoder's texts are forgotten at the end, and also where a run fails.
    """
    check_prompts(prompts, decoder, settings)
    run = _Run(decoder, settings, proposers, [list(map(int, prompt)) for prompt in prompts], on_step)
    run.on_tokens = on_tokens
    try:
        run.all()
    finally:
        decoder.reset()
    done = sorted(run.done, key=lambda text: text.number)
    return Generated([text.new for text in done], [text.ended for text in done], run.stats)


def check_prompts(prompts: Sequence[Sequence[int]], decoder: Decoder, settings: Settings) -> None:
    """Raises UsageError for no prompt, an empty or too long one, and ids that the vocabulary does not have."""
    if not prompts:
        raise UsageError("there is no prompt", wanted="a list of token ids, or a list of such lists")
    if settings.max_new < 1:
        raise UsageError("nothing is to be generated", found=settings.max_new, wanted="at least 1 new token")
    for number, prompt in enumerate(prompts):
        if not len(prompt):
            raise UsageError("is empty", where=f"prompt {number}", wanted="at least one token id")
        if len(prompt) > decoder.last + 1:
            wanted = f"at most {decoder.last + 1} tokens"
            raise UsageError("is longer than the context", where=f"prompt {number}", found=len(prompt), wanted=wanted)
        for at, token in enumerate(prompt):
            if not 0 <= token < decoder.vocabulary:
                where, wanted = f"prompt {number}, token {at}", f"0 to {decoder.vocabulary - 1}"
                raise UsageError("is beyond the vocabulary", where=where, found=token, wanted=wanted)


class _Run:
    """One call of ``generate``."""

    def __init__(
        self,
        decoder: Decoder,
        settings: Settings,
        proposers: Source,
        prompts: list[list[int]],
        on_step: Callable[[int, int], None] | None,
    ) -> None:
        self.decoder, self.settings, self.on_step = decoder, settings, on_step
        self.on_tokens: Callable[[int, Sequence[int]], None] | None = None
        self.ks = decoder.ks
        self.k_top = max(self.ks)
        slots = min(decoder.slots, settings.slots or decoder.slots)
        self.rows: list[Text | None] = [None] * decoder.rows
        self.slots = range(slots)
        cost = {k: settings.cost[k] for k in self.ks} if all(k in settings.cost for k in self.ks) else {}
        self.chooser = Chooser(settings.policy, max(self.k_top, 1), cost)
        self.choose = self.chooser.choose
        self.queue = [self._open(number, prompt, proposers) for number, prompt in enumerate(prompts)][::-1]
        self.goal = settings.max_new * len(prompts)
        self.done: list[Text] = []
        self.stats = Stats()

    def all(self) -> None:
        """Fills rows, steps, and fills again, until nothing is left."""
        self._fill()
        while any(text is not None for text in self.rows):
            self._step()
            if self.decoder.refills or all(text is None for text in self.rows):
                self._fill()

    def _open(self, number: int, prompt: list[int], proposers: Source) -> Text:
        return Text(
            number,
            len(prompt),
            prompt,
            proposers(),
            Pending(Acceptance(self.chooser.acceptance.k_max, self.chooser.acceptance)),
        )

    def _fill(self) -> None:
        """Puts waiting texts into free rows, reads their prompts and gives each its first token."""
        while self.queue and (free := [row for row in self.slots if self.rows[row] is None]):
            began = time.perf_counter()
            texts = {row: self.queue.pop() for row in free[: len(self.queue)]}
            self.decoder.beside.texts |= {row: text.number for row, text in texts.items()}
            after = self.decoder.prefill({row: text.tokens for row, text in texts.items()})
            for row, text in texts.items():
                self.rows[row] = text
                text.proposer.extend(text.tokens)
                self._end_row(row, [self._token(after[row], text, 0)])
            self.stats.seconds["prefill"] += time.perf_counter() - began

    def _step(self) -> None:
        clock = time.perf_counter
        times = [clock()]
        proposals = [[] if text is None else self._propose(row, text) for row, text in enumerate(self.rows)]
        times.append(clock())
        anchors = [
            Anchor(0, 0) if t is None else Anchor(t.tokens[-1], int(self.decoder.lengths[row]))
            for row, t in enumerate(self.rows)
        ]
        live = [text is not None for text in self.rows]
        bound = min(self.k_top, self.decoder.k_bound())
        self.chooser.live = [text.pending.acceptance for text in self.rows if text is not None]
        step = plan(anchors, proposals, live, self.ks, bound, self.choose)
        assert step is not None, "a step has a live row"
        times.append(clock())
        results = self.decoder.decode(step.k, step.ids, step.positions)
        times.append(clock())
        self._take(step, proposals, results)
        times.append(clock())
        spent = [after - before for before, after in itertools.pairwise(times)]
        for part, seconds in zip(("propose", "dispatch", "decode", "dispatch"), spent, strict=True):
            self.stats.seconds[part] += seconds

    def _propose(self, row: int, text: Text) -> list[int]:
        """What the proposer says, cut to what can count."""
        if not self.k_top:
            return []
        room = self.decoder.last - int(self.decoder.lengths[row])
        budget = self.settings.max_new - (len(text.tokens) - text.prompt)
        proposal = limit(text.proposer.propose(self.k_top), room=room, budget=budget, eos=self.settings.eos)
        text.pending.proposed(len(text.tokens), proposal)
        return proposal

    def _take(self, step: Step, proposals: Sequence[Sequence[int]], results: Rows) -> None:
        """Accepts, commits, and tells the caches what stays."""
        counts = np.zeros(len(self.rows), np.int64)
        added: dict[int, list[int]] = {}
        for row, text in enumerate(self.rows):
            if text is None:
                continue
            verified = list(proposals[row][: step.k])
            target = self._targets(results, row, len(verified), text)
            budget = self.settings.max_new - (len(text.tokens) - text.prompt)
            accepted = accept(verified, target)
            added[row] = commit(verified, target, self.settings.eos, budget)
            counts[row] = accepted + 1
            self._count(len(verified), accepted, step.k)
        self.decoder.keep(counts)
        self.stats.steps += 1
        self.stats.chosen[step.k] += 1
        self.chooser.ran(step.k, sum(map(len, added.values())), len(added))
        for row, tokens in added.items():
            self._end_row(row, tokens)
        if self.on_step is not None:
            self.on_step(self.stats.tokens, self.goal)

    def _count(self, verified: int, accepted: int, k: int) -> None:
        self.stats.row_steps += 1
        self.stats.without_proposal += not verified
        self.stats.proposed += verified
        self.stats.accepted += accepted
        self.stats.padded += k - verified

    def _targets(self, results: Rows, row: int, count: int, text: Text) -> list[int]:
        """The target's own token after the anchor and after each proposal."""
        if results.are_tokens:
            return [self.decoder.token(int(results.after(row, at))) for at in range(count + 1)]
        if self.settings.sampling.greedy:
            rows = results.values[row, : count + 1]
            best = rows.argmax(axis=-1)
            if np.isnan(rows[np.arange(len(rows)), best]).any():
                _refuse_nan(text)
            return [self.decoder.token(column) for column in best.tolist()]
        return [self._token(results.after(row, at), text, at) for at in range(count + 1)]

    def _token(self, after: np.ndarray, text: Text, ahead: int) -> int:
        """The token that the target gives ``ahead`` proposals after the text's end."""
        if after.ndim == 0:
            if not self.settings.sampling.greedy and not self.decoder.beside.draws:
                raise NotDecodable(
                    "the graph gives tokens, not logits, so nothing can be drawn", hint="Decode greedily."
                )
            return self.decoder.token(int(after))
        if np.isnan(after).any():
            _refuse_nan(text)
        return self.decoder.token(self.settings.sampling.draw(after, text.number, len(text.tokens) + ahead))

    def _end_row(self, row: int, tokens: list[int]) -> None:
        """Adds tokens to a row's text; one that ended leaves its row."""
        text = self.rows[row]
        assert text is not None, "only live rows get tokens"
        text.add(tokens, self.settings)
        self.stats.tokens += len(tokens)
        if self.on_tokens is not None:
            self.on_tokens(text.number, tokens)
        if not text.ended and self.decoder.lengths[row] > self.decoder.last:
            text.ended = "context"
        if text.ended:
            text.proposer.finish()
            self.done.append(text)
            self.rows[row] = None
            self.decoder.forget(row)


def _refuse_nan(text: Text) -> None:
    hint = "A mask of -inf makes padding NaN where the cache keeps it: use a finite one."
    raise NotDecodable(
        "the graph gave NaN instead of logits", where=f"text {text.number}, token {len(text.tokens)}", hint=hint
    )


def plain(decoder: Decoder, prompt: Sequence[int], max_new: int, eos: Collection[int] = ()) -> list[int]:
    """Greedy decoding of one text, one token a run: what every other way must equal."""
    settings = Settings(max_new, frozenset(eos))
    return generate(decoder, [prompt], settings).tokens[0]
