"""Replays texts step by step under a policy: the proposer sees what was committed, the text says what is right."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnx_llm_passes.runtime.speculate.plan import Anchor, accept, plan
from onnx_llm_passes.runtime.speculate.policies import Acceptance, Chooser, Pending, Policy
from onnx_llm_passes.runtime.speculate.proposers import Proposer, Source

from .corpus import Sample


@dataclass(frozen=True)
class Way:
    """A column of the table: which Ks are compiled, and how one is chosen."""

    name: str
    ks: tuple[int, ...]
    policy: Policy = Policy.COVER


@dataclass
class Outcome:
    """What a replay took: ``seconds`` by the cost table, ``proposing`` and ``deciding`` by the clock."""

    tokens: int = 0
    steps: int = 0
    row_steps: int = 0
    with_proposal: int = 0
    proposed: int = 0
    accepted: int = 0
    fed: int = 0
    useful: int = 0
    seconds: float = 0.0
    proposing: float = 0.0
    deciding: float = 0.0
    chosen: Counter[int] = field(default_factory=Counter[int])

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


@dataclass
class _Row:
    sample: Sample
    proposer: Proposer
    pending: Pending
    text: list[int]

    @property
    def left(self) -> int:
        return len(self.sample.prompt) + len(self.sample.rest) - len(self.text)


def replay(
    samples: Sequence[Sample], source: Source, way: Way, cost: Mapping[int, float], rows: int, top: int
) -> Outcome:
    """Runs all texts through ``rows`` rows, each taking the next text when its own ends.

    ``top`` is how many tokens the proposer is asked for; without any K above 0 it is not asked.
    """
    outcome, chooser = Outcome(), Chooser(way.policy, top, {k: cost[k] for k in way.ks})
    waiting = list(samples)[::-1]
    live: list[_Row] = []
    while waiting or live:
        while waiting and len(live) < rows:
            live.append(_open(waiting.pop(), source, chooser))
        _step(live, way, chooser, outcome, min(top, max(way.ks)))
        for row in live:
            if not row.left:
                row.proposer.finish()
        live = [row for row in live if row.left]
    outcome.seconds = sum(times * cost[k] for k, times in outcome.chosen.items())
    return outcome


def _open(sample: Sample, source: Source, chooser: Chooser) -> _Row:
    row = _Row(
        sample,
        source(),
        Pending(Acceptance(chooser.acceptance.k_max, chooser.acceptance)),
        sample.prompt + sample.rest[:1],
    )
    row.proposer.extend(row.text)
    return row


def _step(live: list[_Row], way: Way, chooser: Chooser, outcome: Outcome, top: int) -> None:
    began = time.perf_counter()
    proposals = [row.proposer.propose(top)[: max(0, row.left - 1)] if top else [] for row in live]
    proposed = time.perf_counter()
    for row, proposal in zip(live, proposals, strict=True):
        row.pending.proposed(len(row.text), proposal)
    anchors = [Anchor(row.text[-1], len(row.text) - 1) for row in live]
    chooser.live = [row.pending.acceptance for row in live]
    step = plan(anchors, proposals, [True] * len(live), way.ks, max(way.ks), chooser.choose)
    assert step is not None, "a step has a live row"
    added = [_verify(row, proposal[: step.k], outcome) for row, proposal in zip(live, proposals, strict=True)]
    chooser.ran(step.k, sum(map(len, added)), len(live))
    decided = time.perf_counter()
    for row, tokens in zip(live, added, strict=True):
        row.text += tokens
        row.proposer.extend(tokens)
        row.pending.resolve(row.text)
    outcome.steps += 1
    outcome.chosen[step.k] += 1
    outcome.fed += (step.k + 1) * len(live)
    outcome.deciding += decided - proposed
    outcome.proposing += proposed - began + time.perf_counter() - decided


def _verify(row: _Row, verified: Sequence[int], outcome: Outcome) -> list[int]:
    truth = row.sample.rest[len(row.text) - len(row.sample.prompt) :]
    right = accept(verified, truth)
    outcome.row_steps += 1
    outcome.with_proposal += bool(verified)
    outcome.proposed += len(verified)
    outcome.accepted += right
    outcome.useful += len(verified) + 1
    outcome.tokens += right + 1
    return truth[: right + 1]
