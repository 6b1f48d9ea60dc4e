"""Caches of which only the new rows leave the graph, grown or written in place: stripped, cloned, calibrated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.interface.axes import Axis
from onnx_llm_passes.ir.interface.dimensions import analyze_dimensions
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.states import Layout, find_states
from onnx_llm_passes.passes.convert_states import ConvertStates, To
from onnx_llm_passes.passes.keep_last_logits import KeepLastLogits
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.calibrate.calibrate import Plan, calibrate
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.verify.verify import verify

TEXTS = [np.random.default_rng(4).integers(0, 128, 20)]


def written() -> ir.Model:
    """The sample that is written at positions, with logits of as many rows as are asked for."""
    model = scatter_decoder()
    KeepLastLogits(symbol="num_logits_to_keep").call(model)
    return model


def as_delta(build: Callable[[], ir.Model]) -> ir.Model:
    model = build()
    assert ConvertStates(to=To.DELTA).call(model).modified
    return model


both = pytest.mark.parametrize("build", [append_decoder, written])


@pytest.mark.parametrize(("build", "inside"), [(append_decoder, Layout.APPEND), (written, Layout.SCATTER)])
def test_the_state_knows_what_its_cache_is_inside_the_graph(build: Callable[[], ir.Model], inside: Layout) -> None:
    for state in find_states(as_delta(build)):
        assert state.layout is Layout.DELTA
        assert state.inside is inside


@both
def test_the_new_rows_are_as_many_as_the_tokens(build: Callable[[], ir.Model]) -> None:
    graph = analyze_dimensions(as_delta(build))
    outputs = {state.output.name for state in graph.states if state.output is not None}
    rows = [place for place in graph.places if place.value in outputs and place.axis == 2]
    assert len(rows) == 4
    assert {place.meaning for place in rows} == {Axis.SEQ}


@both
def test_a_stripped_delta_graph_answers_as_the_whole_one(build: Callable[[], ir.Model]) -> None:
    before = Program({"model": build()})
    after = PassManager(parse_pipeline("single-shot")).run(Program({"model": as_delta(build)}))
    report = verify(before, after)
    assert report.equal, report.first_difference
    assert report.max_abs == 0
    recorded = any("positions=ordered" in line for line in after.assumptions)
    assert recorded == (build is written)  # what the result takes for granted is told, as of the whole cache


@both
def test_clones_of_a_delta_graph_say_what_the_original_says(build: Callable[[], ir.Model]) -> None:
    clones = Program({"model": as_delta(build)})
    PassManager(parse_pipeline("clone-decode{k=0,2 prefill=8 ctx=32}")).run(clones)
    report = verify(Program({"model": build()}), clones)
    assert report.equal, report.first_difference
    assert report.runs == 3


@both
def test_ranges_are_those_of_the_whole_cache(build: Callable[[], ir.Model]) -> None:
    whole = calibrate(Program({"model": build()}), TEXTS, Plan(chunk=8)).ranges
    delta = calibrate(Program({"model": as_delta(build)}), TEXTS, Plan(chunk=8)).ranges
    shared = whole.keys() & delta.keys()
    assert len(shared) > 50
    assert {name: whole[name] for name in shared} == {name: delta[name] for name in shared}
