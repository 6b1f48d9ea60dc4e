"""Chooses which Ks to compile for a budget, from what was proposed, what was right, and what each K costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...ir.core.errors import UsageError
from ..speculate.policies import Policy
from ..speculate.traces import Trace

MAX_SETS = 300_000  # that are tried one by one for a batch of several rows
ROUNDS = 60  # of Dinkelbach's iteration, which needs about five


@dataclass(frozen=True)
class Demand:
    """How often each number of proposals came, and what verifying k of them gives.

    Attributes:
        share: ``share[n]``: how often the longest proposal of a step had n tokens.
        tokens: ``tokens[n][k]``: the tokens that such a step commits on average when K is k.
        single: Whether ``tokens[n][k]`` is ``1 + gain[min(n, k)]``, as for one row: then the best set is computed.
    """

    share: tuple[float, ...]
    tokens: tuple[tuple[float, ...], ...]
    single: bool

    @property
    def top(self) -> int:
        """The largest number of proposals."""
        return len(self.share) - 1


@dataclass(frozen=True)
class Suggestion:
    """A set of Ks, ascending, its tokens a second, and how much more that is than without speculation."""

    ks: tuple[int, ...]
    rate: float
    gain: float

    def to_dict(self) -> dict[str, object]:
        """As ``suggest-k --json`` prints it."""
        return {"ks": list(self.ks), "tokens_per_second": self.rate, "gain": self.gain}


def demand_of(trace: Trace, max_k: int) -> Demand:
    """What a trace says, with at most ``max_k`` proposals a step.

    One row: the i-th proposal is right with P(a >= i | n >= i), whatever n is. Several: averages of the steps
    themselves, by the longest proposal.
    """
    steps = trace.capped(max_k).steps
    top = max(max(step.n) for step in steps)
    share = [0.0] * (top + 1)
    for step in steps:
        share[max(step.n)] += 1.0
    if max(len(step.n) for step in steps) == 1:
        gain = gains((n, a) for step in steps for n, a in zip(step.n, step.a, strict=True))
        return Demand(tuple(share), single_tokens(gain, top), single=True)
    sums = [[0.0] * (top + 1) for _ in share]
    for step in steps:
        row = sums[max(step.n)]
        for k in range(top + 1):
            row[k] += sum(1 + min(a, k) for a in step.a)
    tokens = tuple(tuple(total / max(count, 1.0) for total in row) for row, count in zip(sums, share, strict=True))
    return Demand(tuple(share), tokens, single=False)


def gains(pairs: Iterable[tuple[int, int]]) -> list[float]:
    """``gain[k]``: how many of k proposals are right on average, from pairs of proposals and right ones."""
    seen: list[float] = []
    hits: list[float] = []
    for n, a in pairs:
        while len(seen) < n:
            seen.append(0.0)
            hits.append(0.0)
        for at in range(n):
            seen[at] += 1
            hits[at] += at < a
    return [0.0, *itertools.accumulate(hit / count for hit, count in zip(hits, seen, strict=True))]


def single_tokens(gain: Sequence[float], top: int) -> tuple[tuple[float, ...], ...]:
    """``tokens[n][k]`` of one row."""
    return tuple(tuple(1.0 + gain[min(n, k, len(gain) - 1)] for k in range(top + 1)) for n in range(top + 1))


def suggest(demand: Demand, cost: Mapping[int, float], budget: int, policy: Policy) -> list[Suggestion]:
    """The best set for each budget 1 … ``budget`` (at most so many Ks); ``cost`` in seconds, for each k to the top.

    Raises UsageError where a cost is missing or not positive, and where several rows leave too many sets to try.
    """
    check(demand, cost, budget)
    find = _FINDERS[policy] if demand.single else _enumerate
    found: list[Suggestion] = []
    for size in range(1, budget + 1):
        best = _suggestion(find(demand, cost, size, policy), demand, cost, policy)
        # a larger set that gains nothing is not compiled
        found.append(best if not found or best.rate > found[-1].rate * (1 + 1e-12) else found[-1])
    return found


def check(demand: Demand, cost: Mapping[int, float], budget: int) -> None:
    """Raises UsageError where the question makes no sense."""
    missing = [k for k in range(demand.top + 1) if not (math.isfinite(cost.get(k, 0.0)) and cost.get(k, 0.0) > 0)]
    if missing or budget < 1:
        found = f"none for K {missing}" if missing else f"budget {budget}"
        raise UsageError("every K needs a cost above 0, and the budget is 1 or more", found=found)


def rate(ks: Sequence[int], demand: Demand, cost: Mapping[int, float], policy: Policy) -> float:
    """Tokens a second with this set under a policy that knows the demand."""
    return _RATES[policy](sorted(ks), demand, cost)


def neighbours(ks: Sequence[int], top: int) -> list[tuple[int, ...]]:
    """The sets that differ by one K: one more, one less, or one moved by one."""
    found: set[tuple[int, ...]] = set()
    own = set(ks)
    for k in range(top + 1):
        found.add(tuple(sorted(own ^ {k})))
    for k in own:
        found |= {tuple(sorted(own - {k} | {moved})) for moved in (k - 1, k + 1) if 0 <= moved <= top}
    return sorted(found - {(), tuple(sorted(own))})


def suggestions(
    sets: Iterable[Sequence[int]], demand: Demand, cost: Mapping[int, float], policy: Policy
) -> list[Suggestion]:
    """What each of the sets would give."""
    return [_suggestion(tuple(ks), demand, cost, policy) for ks in sets]


def _suggestion(ks: tuple[int, ...], demand: Demand, cost: Mapping[int, float], policy: Policy) -> Suggestion:
    found, plain = rate(ks, demand, cost, policy), _rate_of(dict.fromkeys(range(demand.top + 1), 0), demand, cost)
    return Suggestion(ks, found, found / plain - 1.0)


def _rate_of(choice: Mapping[int, int], demand: Demand, cost: Mapping[int, float]) -> float:
    tokens = sum(share * demand.tokens[n][choice[n]] for n, share in enumerate(demand.share))
    seconds = sum(share * cost[choice[n]] for n, share in enumerate(demand.share))
    return tokens / seconds


def _cover_rate(ks: Sequence[int], demand: Demand, cost: Mapping[int, float]) -> float:
    choice = {n: next((k for k in ks if k >= n), ks[-1]) for n in range(demand.top + 1)}
    return _rate_of(choice, demand, cost)


def _goodput_rate(ks: Sequence[int], demand: Demand, cost: Mapping[int, float]) -> float:
    """The best choice of K for each n: Dinkelbach's iteration on tokens over seconds."""
    best = 0.0
    for _ in range(ROUNDS):
        choice = {n: max(ks, key=lambda k, n=n: demand.tokens[n][k] - best * cost[k]) for n in range(demand.top + 1)}
        found = _rate_of(choice, demand, cost)
        if found <= best * (1 + 1e-15):
            break
        best = found
    return best


_RATES = {Policy.COVER: _cover_rate, Policy.GOODPUT: _goodput_rate}


def _cover_set(demand: Demand, cost: Mapping[int, float], size: int, policy: Policy) -> tuple[int, ...]:
    """For each largest K, which decides the tokens, the set of least time; of these the best.

    ``least[j]`` is the least time of the steps with at most j proposals, by sets of t Ks whose largest is j.
    """
    below = [0.0, *itertools.accumulate(demand.share)]  # below[n]: steps with fewer than n proposals
    least: list[tuple[float, tuple[int, ...]]] = [(cost[j] * below[j + 1], (j,)) for j in range(demand.top + 1)]
    found = [_topped(least, below, cost, demand)]
    for _ in range(size - 1):
        longer = list(least)
        for j in range(demand.top + 1):
            for i in range(j):
                time = least[i][0] + cost[j] * (below[j + 1] - below[i + 1])
                if time < longer[j][0]:
                    longer[j] = (time, (*least[i][1], j))
        least = longer
        found.append(_topped(least, below, cost, demand))
    return max(found)[1]


def _topped(
    least: Sequence[tuple[float, tuple[int, ...]]], below: Sequence[float], cost: Mapping[int, float], demand: Demand
) -> tuple[float, tuple[int, ...]]:
    """The best of the sets so far, each asked to verify longer proposals cut to its largest K."""
    best: tuple[float, tuple[int, ...]] = (0.0, ())
    for j, (time, ks) in enumerate(least):
        tokens = sum(share * demand.tokens[n][min(n, j)] for n, share in enumerate(demand.share))
        best = max(best, (tokens / (time + cost[j] * (below[-1] - below[j + 1])), ks))
    return best


def _goodput_set(demand: Demand, cost: Mapping[int, float], size: int, policy: Policy) -> tuple[int, ...]:
    """Dinkelbach's iteration: for a rate the set with the largest tokens minus rate times seconds, until it stays."""
    candidates = undominated(cost, demand.top)
    best = max(((k,) for k in candidates), key=lambda ks: _goodput_rate(ks, demand, cost))
    for _ in range(ROUNDS):
        reached = _goodput_rate(best, demand, cost)
        found = _best_for(reached, demand, cost, candidates, size)
        if _goodput_rate(found, demand, cost) <= reached * (1 + 1e-13):
            break
        best = found
    return best


def undominated(cost: Mapping[int, float], top: int) -> list[int]:
    """The Ks that no larger one undercuts: a larger kernel that is faster is better for every proposal."""
    kept: list[int] = []
    cheapest = math.inf
    for k in range(top, -1, -1):
        if cost[k] < cheapest:
            cheapest = cost[k]
            kept.append(k)
    return kept[::-1]


def _best_for(
    wanted: float, demand: Demand, cost: Mapping[int, float], candidates: Sequence[int], size: int
) -> tuple[int, ...]:
    """The set of at most ``size`` candidates with the largest sum of tokens minus ``wanted`` times seconds.

    Steps between two neighbouring Ks i < j take the better of i (cut) and j (padded); others can be left out, for a K
    worth less than a smaller one of its set is never taken and the set without it is tried too.
    """
    share, top = demand.share, demand.top

    def worth(n: int, k: int) -> float:
        return share[n] * (demand.tokens[n][k] - wanted * cost[k])

    def head(j: int) -> float:
        return sum(worth(n, j) for n in range(j))

    def tail(i: int) -> float:
        return sum(worth(n, i) for n in range(i, top + 1))

    between = {
        (i, j): sum(max(worth(n, i), worth(n, j)) for n in range(i, j))
        for i, j in itertools.combinations(candidates, 2)
    }
    row: dict[int, tuple[float, tuple[int, ...]]] = {j: (head(j), (j,)) for j in candidates}
    best = max((value + tail(j), ks) for j, (value, ks) in row.items())
    for _ in range(size - 1):
        row = {
            j: max((row[i][0] + between[i, j], (*row[i][1], j)) for i in candidates if i < j and i in row)
            for j in candidates
            if any(i < j and i in row for i in candidates)
        }
        best = max([best, *((value + tail(j), ks) for j, (value, ks) in row.items())])
    return best[1]


def _enumerate(demand: Demand, cost: Mapping[int, float], size: int, policy: Policy) -> tuple[int, ...]:
    """Every set of at most ``size`` Ks, tried one by one."""
    count = sum(math.comb(demand.top + 1, taken) for taken in range(1, size + 1))
    if count > MAX_SETS:
        hint = "Give a smaller --max-k or --budget."
        raise UsageError("too many sets to try for several rows", found=count, wanted=f"at most {MAX_SETS}", hint=hint)
    return max(_sets(demand.top, size), key=lambda ks: _RATES[policy](ks, demand, cost))


def _sets(top: int, size: int) -> Iterator[tuple[int, ...]]:
    for taken in range(1, size + 1):
        yield from itertools.combinations(range(top + 1), taken)


_FINDERS = {Policy.COVER: _cover_set, Policy.GOODPUT: _goodput_set}
