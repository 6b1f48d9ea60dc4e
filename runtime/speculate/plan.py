"""Plans one step of speculative decoding by pure functions: what is fed, which K runs, what is accepted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ...ir.core.errors import UsageError

PAD_POSITION = -1  # a position that is written nowhere and attends to nothing
PAD_TOKEN = 0  # any row of the embedding table: -1 would be legal for ONNX and not for every device

Choose = Callable[[Sequence[int], Sequence[int]], int]
"""From the proposal lengths of the live rows and the Ks that may run (ascending, not empty): the K to run."""


class Anchor(NamedTuple):
    """The last committed token of a row and its position: it is fed next and is not in the cache yet."""

    token: int
    position: int


class Step(NamedTuple):
    """What a run of ``decode`` for K takes: ids and positions INT64 ``[rows, k + 1]``."""

    k: int
    ids: np.ndarray
    positions: np.ndarray


def plan(
    anchor: Sequence[Anchor],
    proposals: Sequence[Sequence[int]],
    live: Sequence[bool],
    ks: Sequence[int],
    k_max: int,
    choose: Choose | None = None,
) -> Step | None:
    """The next step of a batch, None where no row is live; ``choose`` is the policy, ``cover`` by default.

    ``k_max`` bounds the proposals of every row and, where a smaller K is compiled, K itself; proposals beyond the
    chosen K are cut off. Raises UsageError where no K is compiled, and where the rows disagree in number.
    """
    if not ks:
        raise UsageError("no K is compiled", wanted="at least one decode graph")
    if not len(anchor) == len(proposals) == len(live):
        raise UsageError("rows disagree", found=f"{len(anchor)} anchors, {len(proposals)} proposals, {len(live)} flags")
    if not any(live):
        return None
    allowed = sorted({k for k in ks if k <= k_max}) or [min(ks)]
    counts = [min(len(row), max(k_max, 0)) if alive else 0 for row, alive in zip(proposals, live, strict=True)]
    k = (choose or cover)([count for count, alive in zip(counts, live, strict=True) if alive], allowed)
    ids = np.full((len(anchor), k + 1), PAD_TOKEN, np.int64)
    positions = np.full((len(anchor), k + 1), PAD_POSITION, np.int64)
    for row, alive in enumerate(live):
        if alive:
            count = min(counts[row], k)
            ids[row, 0] = anchor[row].token
            ids[row, 1 : count + 1] = proposals[row][:count]
            positions[row] = position_row(anchor[row].position, count, k)
    return Step(k, ids, positions)


def position_row(anchor: int, count: int, k: int) -> np.ndarray:
    """INT64 ``[k + 1]``: the anchor's position and those of ``count`` proposals, then padding; nothing else decides."""
    row = np.arange(anchor, anchor + k + 1, dtype=np.int64)
    row[count + 1 :] = PAD_POSITION
    return row


def accept(ids: Sequence[int], target: Sequence[int]) -> int:
    """How many of the proposals ``ids`` stand: as long as each is the target's token of the row before it.

    ``target`` holds the target's choice after the anchor and after each proposal, so one more than ``ids``. Greedy
    choices give greedy decoding; tokens drawn from the target's distribution give exact samples of it.
    """
    for count, (proposed, wanted) in enumerate(zip(ids, target, strict=False)):
        if proposed != wanted:
            return count
    return min(len(ids), len(target))


def commit(
    ids: Sequence[int], target: Sequence[int], eos: Collection[int] = (), budget: int | None = None
) -> list[int]:
    """The tokens a step adds: accepted proposals and the target's own next one, up to an end token or the budget."""
    count = accept(ids, target)
    tokens = [*ids[:count], target[count]] if count < len(target) else list(ids[:count])
    end = next((at + 1 for at, token in enumerate(tokens) if token in eos), len(tokens))
    return tokens[: end if budget is None else min(end, budget)]


def limit(proposal: Sequence[int], *, room: int, budget: int, eos: Collection[int] = ()) -> list[int]:
    """A proposal cut to what can count.

    ``room`` is how many positions after the anchor's are left; of ``budget`` tokens the last is the target's own; an
    end token is left to the target, since nothing follows it.
    """
    cut = list(proposal[: max(0, min(room, budget - 1))])
    return next((cut[:at] for at, token in enumerate(cut) if token in eos), cut)


def cover(lengths: Sequence[int], ks: Sequence[int]) -> int:
    """The smallest K that covers the longest proposal, else the largest."""
    longest = max(lengths, default=0)
    return next((k for k in sorted(ks) if k >= longest), max(ks))


def select_k(lengths: Sequence[int], ks: Sequence[int]) -> int:
    """``cover`` as QEfficient spells it: where there is no proposal at all to look at, the largest K."""
    return cover(lengths, ks) if lengths else max(ks)


def goodput(
    lengths: Sequence[int],
    ks: Sequence[int],
    *,
    gains: Sequence[Sequence[float]],
    cost: Mapping[int, float],
    rate: float,
) -> int:
    """The K with the largest expected tokens minus ``rate`` times its cost; the smallest of those alike.

    ``gains[row][n]`` is how many of n verified proposals of a live row are accepted on average (0 for n = 0; beyond its
    end the last one holds), ``cost[k]`` the seconds of a run, ``rate`` the tokens that a second spent elsewhere gives.
    """

    def worth(k: int) -> float:
        rows = zip(lengths, gains, strict=True)
        return sum(gain[min(length, k, len(gain) - 1)] for length, gain in rows) - rate * cost[k]

    return max(sorted(ks), key=worth)
