"""What a step feeds and what it commits: pure functions, held to their definitions on random instances."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_llm_passes.ir.core.errors import UsageError
from onnx_llm_passes.runtime.speculate.plan import (
    PAD_POSITION,
    Anchor,
    accept,
    commit,
    cover,
    goodput,
    limit,
    plan,
    position_row,
    select_k,
)
from onnx_llm_passes.runtime.speculate.policies import Acceptance, Chooser, Pending, Policy

TOKENS = st.integers(0, 5)
KS = st.sets(st.integers(0, 8), min_size=1).map(sorted)


@st.composite
def steps(draw: st.DrawFn) -> tuple[list[Anchor], list[list[int]], list[bool], list[int], int]:
    rows = draw(st.integers(1, 5))
    anchors = [Anchor(draw(TOKENS), draw(st.integers(0, 100))) for _ in range(rows)]
    proposals = [draw(st.lists(TOKENS, max_size=12)) for _ in range(rows)]
    live = [draw(st.booleans()) for _ in range(rows)]
    return anchors, proposals, live, draw(KS), draw(st.integers(0, 10))


@given(steps())
def test_positions_follow_from_the_anchor_the_count_and_k_alone(
    step: tuple[list[Anchor], list[list[int]], list[bool], list[int], int],
) -> None:
    anchors, proposals, live, ks, k_max = step
    made = plan(anchors, proposals, live, ks, k_max)
    if not any(live):
        assert made is None
        return
    assert made is not None
    assert made.k in ks
    assert made.ids.shape == made.positions.shape == (len(anchors), made.k + 1)
    for row, alive in enumerate(live):
        count = min(len(proposals[row]), made.k, k_max)
        if not alive:
            assert (made.positions[row] == PAD_POSITION).all()
            assert (made.ids[row] == 0).all()
            continue
        wanted = [anchors[row].position + at if at <= count else -1 for at in range(made.k + 1)]
        assert made.positions[row].tolist() == wanted
        assert made.ids[row, : count + 1].tolist() == [anchors[row].token, *proposals[row][:count]]
        assert not made.ids[row, count + 1 :].any()


@given(steps())
def test_k_is_the_smallest_that_covers_what_may_be_verified(
    step: tuple[list[Anchor], list[list[int]], list[bool], list[int], int],
) -> None:
    anchors, proposals, live, ks, k_max = step
    made = plan(anchors, proposals, live, ks, k_max)
    if made is None:
        return
    longest = max(min(len(p), k_max) for p, alive in zip(proposals, live, strict=True) if alive)
    allowed = [k for k in ks if k <= k_max] or [min(ks)]
    assert made.k == min((k for k in allowed if k >= longest), default=max(allowed))


def test_a_long_proposal_after_a_partial_one_has_positions_of_its_own() -> None:
    """The published loop computes a step's positions from the last one's: a pad of -1 became position 0 … 4."""
    position = 10
    for count, accepted in ((4, 4), (1, 1), (4, 2), (2, 0), (4, 4)):
        made = plan([Anchor(7, position)], [[1] * count], [True], [4], 4)
        assert made is not None
        assert made.positions[0].tolist() == [position + at if at <= count else -1 for at in range(5)]
        position += accepted + 1


def test_dead_rows_do_not_choose_k() -> None:
    made = plan([Anchor(1, 5), Anchor(2, 6)], [[], [3, 4, 5, 6]], [True, False], [0, 4], 4)
    assert made is not None
    assert made.k == 0


def test_refused_steps() -> None:
    with pytest.raises(UsageError, match="no K is compiled"):
        plan([Anchor(1, 1)], [[]], [True], [], 4)
    with pytest.raises(UsageError, match="rows disagree"):
        plan([Anchor(1, 1)], [[], []], [True], [0], 4)


def test_a_position_row_of_no_proposal_is_the_anchor_alone() -> None:
    assert position_row(9, 0, 3).tolist() == [9, -1, -1, -1]
    assert position_row(9, 3, 3).tolist() == [9, 10, 11, 12]


@given(st.lists(TOKENS, max_size=6), st.lists(TOKENS, min_size=7, max_size=7))
def test_accepted_is_the_longest_common_prefix(ids: list[int], target: list[int]) -> None:
    target = target[: len(ids) + 1]
    count = accept(ids, target)
    assert ids[:count] == target[:count]
    assert count == len(ids) or ids[count] != target[count]


@given(st.lists(TOKENS, max_size=6), st.lists(TOKENS, min_size=7, max_size=7), st.sets(TOKENS), st.integers(1, 9))
def test_committed_is_what_one_token_a_run_would_give(
    ids: list[int], target: list[int], eos: set[int], budget: int
) -> None:
    target = target[: len(ids) + 1]
    one_by_one: list[int] = []
    while len(one_by_one) < budget:
        one_by_one.append(target[len(one_by_one)])
        at = len(one_by_one) - 1
        if one_by_one[-1] in eos or at >= len(ids) or ids[at] != one_by_one[-1]:
            break
    assert commit(ids, target, eos, budget) == one_by_one


@given(st.lists(TOKENS, max_size=9), st.integers(-1, 9), st.integers(1, 9), st.sets(TOKENS))
def test_a_proposal_never_outlives_the_context_the_budget_or_an_end_token(
    proposal: list[int], room: int, budget: int, eos: set[int]
) -> None:
    cut = limit(proposal, room=room, budget=budget, eos=eos)
    assert cut == proposal[: len(cut)]
    assert len(cut) <= max(0, min(room, budget - 1))
    assert not eos & set(cut)
    whole = len(cut) == len(proposal) or len(cut) == max(0, min(room, budget - 1))
    assert whole or proposal[len(cut)] in eos


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), KS)
def test_cover_and_the_published_spelling(lengths: list[int], ks: list[int]) -> None:
    assert cover(lengths, ks) == min((k for k in ks if k >= max(lengths)), default=max(ks)) == select_k(lengths, ks)
    assert select_k([], ks) == max(ks)


@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=4),
    KS,
    st.lists(st.floats(0, 1), min_size=8, max_size=8),
    st.lists(st.floats(0.1, 3), min_size=9, max_size=9),
    st.floats(0.1, 5),
)
def test_goodput_takes_the_k_worth_most(
    lengths: list[int], ks: list[int], right: list[float], costs: list[float], rate: float
) -> None:
    gain = [sum(right[:n]) for n in range(9)]
    cost = dict(enumerate(costs))
    worth = {k: sum(gain[min(n, k)] for n in lengths) - rate * cost[k] for k in ks}
    assert worth[goodput(lengths, ks, gains=[gain] * len(lengths), cost=cost, rate=rate)] == max(worth.values())


def test_goodput_learns_that_proposals_are_wrong() -> None:
    chooser = Chooser(Policy.GOODPUT, 4, {0: 1.0, 4: 1.6})
    assert chooser.choose([4], [0, 4]) == 4
    for _ in range(60):
        chooser.acceptance.observe(4, 0)
        chooser.ran(0, 1)
    assert chooser.choose([4], [0, 4]) == 0
    for _ in range(200):
        chooser.acceptance.observe(4, 4)
        chooser.ran(0, 1)
    assert chooser.choose([4], [0, 4]) == 4


def test_a_proposal_that_was_cut_is_judged_by_what_follows() -> None:
    acceptance = Acceptance(4)
    pending = Pending(acceptance)
    pending.proposed(2, [5, 6, 7])
    pending.resolve([1, 2, 5])
    assert pending.waiting
    before = acceptance.gain()
    pending.resolve([1, 2, 5, 6, 9])
    assert not pending.waiting
    after = acceptance.gain()
    assert after[2] == before[2]  # both stayed right as the optimism had it
    assert after[3] < before[3]
