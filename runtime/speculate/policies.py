"""A policy learns while it runs how often proposals are accepted, and how many tokens a second it gives."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .plan import Choose, cover, goodput

MEMORY = 1000.0  # observations after which an older one counts e times less
SPAN = 20.0  # seconds of runs after which an older throughput counts e times less
OWN_MEMORY = 50.0  # the same for one text
TRUST = 20.0  # observations of a text's own that count as much as what all texts say
CAUTION = 1.1  # a K must be worth that much of its cost: of estimates the luckiest wins too often
OPTIMISM = 4.0  # accepted proposals that every position starts with: an untried K is tried


class Policy(enum.StrEnum):
    """How K is chosen."""

    COVER = "cover"
    GOODPUT = "goodput"


@dataclass
class Acceptance:
    """P(the i-th proposal is accepted, given that there are i), as a moving average for each i.

    One of a text's own starts from that of all texts, which learns with it: texts differ more than times do.
    """

    k_max: int
    of_all: Acceptance | None = None
    hits: list[float] = field(default_factory=list[float])
    seen: list[float] = field(default_factory=list[float])

    def __post_init__(self) -> None:
        self.hits = [0.0 if self.of_all else OPTIMISM] * self.k_max
        self.seen = list(self.hits)

    def observe(self, count: int, accepted: int) -> None:
        """Takes in a proposal of ``count`` tokens of which the first ``accepted`` turned out right."""
        fade = 1.0 - 1.0 / (OWN_MEMORY if self.of_all else MEMORY)
        for at in range(min(count, self.k_max)):
            self.hits[at] = self.hits[at] * fade + (at < accepted)
            self.seen[at] = self.seen[at] * fade + 1.0
        if self.of_all is not None:
            self.of_all.observe(count, accepted)

    def gain(self) -> list[float]:
        """``gain[n]``: how many of n proposals are accepted on average, n from 0."""
        return [0.0, *itertools.accumulate(self.shares())]

    def shares(self) -> list[float]:
        """The averages themselves, i from 1."""
        if self.of_all is None:
            return [hit / seen for hit, seen in zip(self.hits, self.seen, strict=True)]
        others = zip(self.hits, self.seen, self.of_all.shares(), strict=True)
        return [(hit + TRUST * share) / (seen + TRUST) for hit, seen, share in others]


@dataclass
class Throughput:
    """Tokens a second and live row, as a moving average over the runs' own seconds.

    Of a row: a run takes as long for few live rows as for all, so that what a second is worth falls with their number.
    """

    tokens: float
    seconds: float

    def observe(self, tokens: int, rows: int, seconds: float) -> None:
        """Takes in a run of so many live rows."""
        fade = max(0.0, 1.0 - seconds / SPAN)
        self.tokens = self.tokens * fade + tokens / rows
        self.seconds = self.seconds * fade + seconds

    @property
    def rate(self) -> float:
        """Tokens a second and row."""
        return self.tokens / self.seconds


class Chooser:
    """Chooses K step after step by a policy; without costs goodput has nothing to weigh and covers."""

    def __init__(self, policy: Policy, k_max: int, cost: Mapping[int, float] | None = None) -> None:
        self.acceptance = Acceptance(k_max)
        self.live: list[Acceptance] = []
        self.cost = dict(cost or {})
        self._goodput = policy is Policy.GOODPUT and bool(self.cost)
        cheapest = min(self.cost.values(), default=1.0)
        self.throughput = Throughput(1.0, cheapest)

    @property
    def choose(self) -> Choose:
        """What ``plan`` takes."""
        return self._weigh if self._goodput else cover

    def _weigh(self, lengths: Sequence[int], ks: Sequence[int]) -> int:
        gains = [row.gain() for row in self.live] or [self.acceptance.gain()] * len(lengths)
        return goodput(lengths, ks, gains=gains, cost=self.cost, rate=CAUTION * self.throughput.rate * len(lengths))

    def ran(self, k: int, tokens: int, rows: int = 1) -> None:
        """Takes in a run for K whose live rows committed ``tokens``; its cost is the table's, not the noisy clock's."""
        if self._goodput:
            self.throughput.observe(tokens, rows, self.cost[k])


@dataclass
class Pending:
    """Proposals of one row that the text has not confirmed or refuted to the end yet.

    Whether a proposal would have been accepted shows in what is generated afterwards, also where it was cut off or not
    verified at all: so acceptance is learned without running a K to try it.
    """

    acceptance: Acceptance
    waiting: list[tuple[int, list[int]]] = field(default_factory=list[tuple[int, list[int]]])

    def proposed(self, start: int, proposal: list[int]) -> None:
        """Notes a proposal whose first token would be token ``start`` of the text."""
        if proposal:
            self.waiting.append((start, proposal))

    def resolve(self, text: Sequence[int]) -> None:
        """Hands on every proposal that ``text`` has decided."""
        left: list[tuple[int, list[int]]] = []
        for start, proposal in self.waiting:
            known = text[start : start + len(proposal)]
            wrong = next((at for at, token in enumerate(known) if token != proposal[at]), None)
            if wrong is None and len(known) < len(proposal):
                left.append((start, proposal))
            else:
                self.acceptance.observe(len(proposal), len(proposal) if wrong is None else wrong)
        self.waiting = left
