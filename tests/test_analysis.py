"""Analyses are computed once for a version of a graph; what a pass says that it preserves is what is found anew."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.interface.analysis import ALL, GraphAnalysis, Known, analysis_of, forget, kept_analyses
from onnx_llm_passes.ir.interface.dimensions import DimensionAnalysis
from onnx_llm_passes.ir.program.clone import Clone, materialize
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.base import Pass, Report
from onnx_llm_passes.passes.instruments import Instrument
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

SPECULATIVE = "speculative{k=0,4 prefill=32 ctx=128}"


def plain(item: object) -> str:
    """Text in which the numbers of fresh symbols do not show."""
    return re.sub(r"\?\d+", "?", str(item))


def told(analysis: GraphAnalysis) -> dict[Known, object]:
    """Everything that an analysis says, to be compared."""
    dims: DimensionAnalysis = analysis.dimensions()
    return {
        Known.STATES: [
            (s.layout, s.pairing, s.kind, s.layer, s.axis, s.input, s.output, s.update, s.new, s.carried, s.positions)
            for s in analysis.states
        ],
        Known.ROLES: dict(analysis.roles),
        Known.FACTS: {
            value: (plain(analysis.facts.shape(value)), plain(analysis.facts.ints(value)))
            for node in analysis.model.graph
            for value in node.outputs
        },
        Known.DIMENSIONS: (
            [str(place) for place in dims.places],
            dict(dims.solution.solved),
            dims.needed,
            [(plain((d.relation, d.left, d.right)), d.node) for d in dims.demands.items],
            {v: plain(dims.demands.facts.shape(v)) for node in analysis.model.graph for v in node.outputs},
        ),
    }


class Recompute(Instrument):
    """After each pass everything that is still kept is found anew, and must be the same."""

    def before(self, pass_: Pass, program: Program) -> None:
        for model in program.graphs.values():
            told(analysis_of(model))

    def after(self, pass_: Pass, program: Program, report: Report) -> None:
        for model in program.graphs.values():
            kept, anew = told(analysis_of(model)), told(GraphAnalysis(model))
            for known in Known:
                assert kept[known] == anew[known], (pass_.name, known)


@pytest.mark.parametrize(
    "pipeline",
    [
        SPECULATIVE,
        "single-shot",
        "argmax-tail,clone-decode{k=0 prefill=16 ctx=64},check",
        "convert-states{to=delta},keep-last-logits{n=1},custom-io",
        "specialize{family=causal-lm prefill=8 ctx=32},emit-manifest{target=tensorrt}",
    ],
)
@pytest.mark.parametrize("build", [append_decoder, scatter_decoder])
def test_what_a_pass_preserves_is_what_is_found_anew(build: Callable[[], ir.Model], pipeline: str) -> None:
    program = Program({"model": build()})
    PassManager(parse_pipeline(pipeline), [Recompute()]).run(program)


def count(monkeypatch: pytest.MonkeyPatch, *names: str) -> Counter[str]:
    """How often functions of the package run, wherever they were imported to."""
    counted: Counter[str] = Counter()
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("onnx_llm_passes.")]
    for name in names:
        for module in modules:
            found: Any = getattr(module, name, None)
            if not callable(found):
                continue

            def wrapper(*args: Any, _run: Any = found, _name: str = name, **options: Any) -> Any:
                counted[_name] += 1
                return _run(*args, **options)

            monkeypatch.setattr(module, name, wrapper)
    return counted


def test_a_pipeline_searches_and_sweeps_a_graph_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = parse_pipeline(SPECULATIVE)  # their modules are loaded now
    counted = count(monkeypatch, "find_states", "propagate")
    PassManager(passes).run(Program({"model": append_decoder()}))
    assert counted["find_states"] <= 4
    assert counted["propagate"] <= 6


def test_clones_have_the_roles_of_their_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decode of one token whose answer is a token id looks like a counter: by its numbers alone it is misread."""
    program = Program({"model": append_decoder()})
    PassManager(parse_pipeline("clone-decode{k=0,1,2 ctx=64},argmax-tail")).run(program)
    roles = dict(analysis_of(program.graphs["model"]).roles)
    counted = count(monkeypatch, "find_roles")
    with kept_analyses(program.graphs):
        for name in program.names:
            assert analysis_of(program.graph(name)).roles == roles
    assert counted["find_roles"] == 1


def test_verification_finds_the_roles_of_each_graph_once(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program({"model": append_decoder()})
    PassManager(parse_pipeline(SPECULATIVE.replace("}", " form=graphs}"))).run(program)
    counted = count(monkeypatch, "find_roles")
    assert verify(Program({"model": append_decoder()}), program).verdict is Verdict.EQUAL
    assert len(program.names) == 3
    assert counted["find_roles"] <= 2  # of the original and of the one graph that has the clones


def test_a_clone_that_was_edited_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    model = append_decoder()
    clone = materialize(model, Clone("model"), "clone")
    counted = count(monkeypatch, "find_roles")
    assert analysis_of(clone).roles == analysis_of(model).roles
    assert counted["find_roles"] == 1
    forget(clone)
    assert analysis_of(clone).roles
    assert counted["find_roles"] == 2
    renamed = materialize(model, Clone("model"), "clone")
    renamed.graph.inputs[0].name = "ids"
    assert "ids" in analysis_of(renamed).roles


def test_nothing_is_kept_outside_of_a_run_or_for_a_clone() -> None:
    model = append_decoder()
    graphs = {"model": model}
    with kept_analyses(graphs):
        assert analysis_of(model).states is analysis_of(model).states
        assert analysis_of(model.clone()).model is not model
    assert analysis_of(model).states is not analysis_of(model).states


def test_an_edit_drops_what_rests_on_what_it_changed() -> None:
    model = append_decoder()
    with kept_analyses({"model": model}):
        known = analysis_of(model)
        states, roles, facts, dims = known.states, known.roles, known.facts, known.dimensions()
        forget(model, ALL)
        assert (known.states, known.roles, known.facts, known.dimensions()) == (states, roles, facts, dims)
        forget(model, {Known.STATES, Known.DIMENSIONS})
        assert known.states is states
        assert known.roles is not roles
        assert known.dimensions() is not dims
        assert known.facts is not facts


def test_an_inner_run_leaves_what_the_outer_one_keeps() -> None:
    model = append_decoder()
    graphs = {"model": model}
    with kept_analyses(graphs):
        states = analysis_of(model).states
        PassManager(parse_pipeline("check-speculation-safe{k=2}")).run(Program(graphs))
        assert analysis_of(model).states is states
