"""specialize: sizes are bound by what dimensions mean, under the graph's own names."""

from __future__ import annotations

from typing import Any

import pytest

from onnx_llm_passes.ir.core.errors import PassRefused, UnknownNameError, UsageError
from onnx_llm_passes.ir.core.specialization import (
    Specialization,
    SpecRole,
)
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.specialize import Specialize, moved_lengths

from .builders import BUILDERS, OTHERS


def run(graph: str, **options: Any) -> Program:
    program = Program({"model": (BUILDERS | OTHERS)[graph]()})
    Specialize(**options).run(program)
    return program


def bindings(program: Program) -> dict[str, dict[str, int]]:
    return {item.name: item.binding for item in program.specializations}


def test_growing_caches_are_bound_under_the_graphs_own_names() -> None:
    found = bindings(run("append", prefill=8, ctx=32, k=(0, 3)))
    assert list(found) == ["Prefill", "Decode_0", "Decode_1"]
    past, seq = (next(n for n in found["Prefill"] if w in n) for w in ("past", "seq"))
    assert [found[name][past] for name in found] == [0, 31, 28]
    assert found["Decode_1"] == {**found["Prefill"], **{n: v for n, v in found["Decode_1"].items() if n != "batch"}}
    assert seq


def test_caches_written_in_place_have_the_context() -> None:
    program = run("scatter", prefill=8, ctx=32)
    assert [(i.name, i.role, sorted(i.binding.values())) for i in program.specializations] == [
        ("Prefill", SpecRole.PREFILL, [1, 8, 32]),
        ("Decode", SpecRole.DECODE, [1, 1, 32]),
    ]


def test_rows_chosen_by_batch_need_their_number() -> None:
    with pytest.raises(PassRefused, match="nothing decides"):
        run("scatter batch index", prefill=8, ctx=32)
    found = bindings(run("scatter batch index", prefill=8, ctx=32, full_batch=4))
    assert [sorted(binding.values()) for binding in found.values()] == [[1, 1, 4, 8, 32], [1, 4, 4, 32]]


def test_a_second_run_adds_nothing_and_another_length_gets_its_own_name() -> None:
    program = run("scatter", prefill=8, ctx=32)
    again = Specialize(prefill=8, ctx=32).run(program)
    assert (again.modified, again.counts) == (False, {"specializations": 0})
    Specialize(prefill=16, ctx=32).run(program)
    assert [item.name for item in program.specializations] == ["Prefill", "Prefill_0", "Decode"]


def test_a_graph_without_states_has_only_a_prefill() -> None:
    program = run("no states", prefill=8)
    assert [item.role for item in program.specializations] == [SpecRole.PREFILL]


def test_an_unknown_graph_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"'modle'.*'model'"):
        Specialize(graph="modle").run(Program({"model": BUILDERS["scatter"]()}))


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("embedding", {"ctx": 64}),
        ("embedding", {"ccl": (1024,)}),
        ("speech", {"prefill": 8}),
        ("causal-lm", {"height": (224,)}),
        ("causal-lm", {"lengths": (8,)}),
        ("raw", {"prefill": 8}),
    ],
)
def test_an_option_that_the_family_does_not_read_is_refused(family: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"does not read option '{next(iter(options))}'.*It reads"):
        run("append", family=family, **options)


def test_context_lengths_that_come_out_other_than_asked_are_told() -> None:
    asked = Specialize(prefill=32, ctx=128, ccl=(64, 128), ccl_prefill=(64, 128))
    came = [
        Specialization(name=role.value, role=role, binding={"comp_ctx_lengths": size})
        for role, size in ((SpecRole.PREFILL, 96), (SpecRole.DECODE, 128))
    ]
    told = list(moved_lengths(asked, came))
    assert [line.partition(":")[0] for line in told] == ["prefill", "decode"]
    assert "96 instead of 64,128" in told[0]
    assert "128 instead of 64,128" in told[1]
    assert not list(moved_lengths(Specialize(prefill=32, ctx=128, ccl=(128,)), came))
