"""The set of Ks that is computed is the best of all sets; traces are written, read and refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnx_llm_passes.ir.core.errors import InputError, UsageError
from onnx_llm_passes.runtime.speculate.policies import Policy
from onnx_llm_passes.runtime.speculate.proposers import NGram, Nothing
from onnx_llm_passes.runtime.speculate.traces import Trace, TraceStep, read_trace, record, write_trace
from onnx_llm_passes.runtime.suggest.costs import fill_in
from onnx_llm_passes.runtime.suggest.suggest import Demand, demand_of, neighbours, rate, single_tokens, suggest

INSTANCES = settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def instances(draw: st.DrawFn) -> tuple[Demand, dict[int, float]]:
    """One row: any histogram, any acceptance, costs that may fall as K grows."""
    top = draw(st.integers(0, 6))
    share = [float(draw(st.integers(0, 20))) for _ in range(top + 1)]
    share[-1] += 1.0 if not any(share) else 0.0
    right = [draw(st.floats(0, 1)) for _ in range(top)]
    cost = {k: draw(st.floats(0.2, 4)) for k in range(top + 1)}
    if draw(st.booleans()):
        cost = dict(enumerate(sorted(cost.values())))
    return Demand(tuple(share), single_tokens([0.0, *itertools.accumulate(right)], top), single=True), cost


@INSTANCES
@given(instances(), st.sampled_from(list(Policy)), st.integers(1, 4))
def test_the_computed_set_is_the_best_of_all(
    instance: tuple[Demand, dict[int, float]], policy: Policy, budget: int
) -> None:
    demand, cost = instance
    for size, found in enumerate(suggest(demand, cost, budget, policy), start=1):
        every = (s for n in range(1, size + 1) for s in itertools.combinations(range(demand.top + 1), n))
        best = max(rate(ks, demand, cost, policy) for ks in every)
        assert len(found.ks) <= size
        assert rate(found.ks, demand, cost, policy) == pytest.approx(best, rel=1e-9)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Demand, dict[int, float]]:
    """Several rows: averages of recorded steps."""
    rows, top = draw(st.integers(2, 4)), draw(st.integers(1, 5))
    steps: list[TraceStep] = []
    for _ in range(draw(st.integers(1, 12))):
        n = [draw(st.integers(0, top)) for _ in range(rows)]
        steps.append(TraceStep(n=n, a=[draw(st.integers(0, count)) for count in n]))
    return demand_of(Trace(top, rows, "", steps), top), {k: draw(st.floats(0.2, 4)) for k in range(top + 1)}


@settings(max_examples=150, deadline=None)
@given(batches(), st.sampled_from(list(Policy)))
def test_a_batch_gets_the_best_of_all_sets_too(instance: tuple[Demand, dict[int, float]], policy: Policy) -> None:
    demand, cost = instance
    found = suggest(demand, cost, 2, policy)
    assert found[1].rate >= found[0].rate - 1e-12
    every = (s for n in (1, 2) for s in itertools.combinations(range(demand.top + 1), n))
    assert found[1].rate == pytest.approx(max(rate(ks, demand, cost, policy) for ks in every), rel=1e-9)


@given(instances())
def test_goodput_is_never_worse_than_cover_or_than_nothing(instance: tuple[Demand, dict[int, float]]) -> None:
    demand, cost = instance
    every = tuple(range(demand.top + 1))
    best = rate(every, demand, cost, Policy.GOODPUT)
    assert best >= rate(every, demand, cost, Policy.COVER) * (1 - 1e-12)
    assert best >= rate((0,), demand, cost, Policy.COVER) * (1 - 1e-12)


def test_a_fixed_k_gains_exactly_where_its_tokens_outrun_its_cost() -> None:
    for right, cost in ((0.9, 1.5), (0.9, 2.0), (0.1, 1.2), (0.5, 1.6)):
        demand = Demand((0.0, 1.0), single_tokens([0.0, right], 1), single=True)
        fixed = suggest(demand, {0: 1.0, 1: cost}, 1, Policy.COVER)
        gain = rate((1,), demand, {0: 1.0, 1: cost}, Policy.COVER) / rate((0,), demand, {0: 1.0, 1: cost}, Policy.COVER)
        assert (gain > 1) == (1 + right > cost)
        assert fixed[0].ks == ((1,) if 1 + right > cost else (0,))


def test_a_k_that_gains_nothing_is_not_compiled() -> None:
    demand = Demand((1.0, 0.0), single_tokens([0.0, 1.0], 1), single=True)
    for policy in Policy:
        found = suggest(demand, {0: 1.0, 1: 2.0}, 2, policy)
        assert [best.ks for best in found] == [(0,), (0,)]


def test_neighbours_differ_by_one_k() -> None:
    assert neighbours((0, 2), 3) == [(0,), (0, 1), (0, 1, 2), (0, 2, 3), (0, 3), (1, 2), (2,)]


def test_costs_between_measured_ones_lie_on_a_line() -> None:
    costs, guessed = fill_in({0: 1.0, 4: 3.0}, 6)
    assert costs == {0: 1.0, 1: 1.5, 2: 2.0, 3: 2.5, 4: 3.0, 5: 3.5, 6: 4.0}
    assert guessed == (1, 2, 3, 5, 6)


def test_a_demand_without_costs_is_refused() -> None:
    demand = Demand((1.0, 1.0), single_tokens([0.0, 0.5], 1), single=True)
    for cost in ({0: 1.0}, {0: 1.0, 1: 0.0}, {0: 1.0, 1: float("nan")}):
        with pytest.raises(UsageError, match="cost"):
            suggest(demand, cost, 1, Policy.COVER)
    with pytest.raises(UsageError, match="budget"):
        suggest(demand, {0: 1.0, 1: 1.0}, 0, Policy.COVER)


def test_a_replay_steps_as_generating_does() -> None:
    text = [1, 2, 3, 1, 2, 3, 1, 2, 3, 9]
    trace = record([(text, 4)], lambda: NGram(2, 2), 3)
    # read 1 2 3 1, given 2; then 3 1 2 is proposed and right, 3 comes free, and 9 is the last token: nothing to verify
    assert [(step.n, step.a) for step in trace.steps] == [([3], [3]), ([0], [0])]
    plain = record([(text, 4), (text[:6], 3)], Nothing, 3, rows=2)
    assert [len(step.n) for step in plain.steps] == [2, 2, 1, 1, 1]


def test_a_trace_comes_back_as_it_was_written(tmp_path: Path) -> None:
    trace = Trace(4, 2, "ngram", [TraceStep(n=[0, 4], a=[0, 2]), TraceStep(n=[1], a=[1])])
    write_trace(trace, tmp_path / "t.jsonl")
    assert read_trace(tmp_path / "t.jsonl") == trace


HEADER = '{"format":"onnx-llm-passes/trace","version":1,"max_k":4}\n'


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "line 1"),
        ("[]\n", "line 1"),
        ('{"format":"other","version":1,"max_k":4}\n', "line 1"),
        (HEADER, "holds no step"),
        (HEADER + '{"n":[1],"a":[2]}\n', "line 2"),
        (HEADER + '{"n":[1],"a":[0]}\n{"n":[1]}\n', "line 3"),
        (HEADER + "nonsense\n", "line 2"),
        (HEADER + "[" * 100_000 + "\n", "line 2"),
    ],
)
def test_a_damaged_trace_is_refused_by_line(tmp_path: Path, text: str, where: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=where):
        read_trace(path)
