"""TensorScatter in both modes, with and without its index, under a mask, a length or the causal rule alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.program.contract import ContractBroken
from onnx_llm_passes.ir.program.contracts.positions import KeysOfRun
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.states import Layout, find_states
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.verify.verify import verify

from .scatter_graphs import standard_attention, tensor_scatter

GRAPHS: dict[str, Callable[[], ir.Model]] = {
    "circular, masked": lambda: tensor_scatter("circular"),
    "no index, causal": lambda: standard_attention(index=False, count=False),
    "no index, counted": lambda: standard_attention(index=False, count=True),
    "index, counted": lambda: standard_attention(index=True, count=True),
}


@pytest.mark.parametrize("build", GRAPHS.values(), ids=GRAPHS)
def test_the_cache_is_found_and_goes_whole(build: Callable[[], ir.Model]) -> None:
    states = find_states(build())
    assert [(s.layout, s.axis, s.kind) for s in states] == [(Layout.SCATTER, 2, "key"), (Layout.SCATTER, 2, "value")]
    original, result = (Program(graphs={"g": build()}) for _ in range(2))
    PassManager(parse_pipeline("single-shot")).run(result)
    left = {value.name for value in result.graphs["g"].graph.inputs}
    assert left <= {"input_ids", "position_ids"}
    report = verify(original, result)
    assert report.equal, report.first_difference
    assert report.runs > 0


def test_an_index_under_the_causal_rule_alone_is_refused() -> None:
    """Aligned to the top left, rows that earlier runs wrote are seen or not by where the run begins."""
    with pytest.raises(PassRefused, match="no mask hides the rows"):
        PassManager(parse_pipeline("strip-states")).run(
            Program(graphs={"g": standard_attention(index=True, count=False)})
        )


@pytest.mark.parametrize(("name", "why"), [("circular, masked", "is a ring"), ("no index, counted", "from row 0 on")])
def test_rejected_tokens_of_such_caches_cannot_be_taken_back(name: str, why: str) -> None:
    program = Program(graphs={"g": GRAPHS[name]()})
    with pytest.raises(PassRefused, match=why):
        PassManager(parse_pipeline("check-speculation-safe{k=2}")).run(program)


def test_counts_must_be_the_number_of_tokens() -> None:
    contract = KeysOfRun("nonpad_kv_seqlen", "input_ids")
    feeds = {"input_ids": np.zeros((2, 5), np.int64), "nonpad_kv_seqlen": np.array([5, 3])}
    with pytest.raises(ContractBroken, match="nonpad_kv_seqlen"):
        contract.holds(feeds)
    contract.holds(contract.constrained(feeds))
