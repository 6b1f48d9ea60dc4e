"""bind: one specialization written into a graph, every dimension a number, and the numbers the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_llm_passes.ir.core.errors import UnknownNameError
from onnx_llm_passes.ir.core.specialization import Manifest, Specialization, SpecRole
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.proof import prove_program
from onnx_llm_passes.ir.rewrite.bind_sizes import bound_in
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.samples.samples import append_decoder
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

from .builders import BUILDERS
from .manifest_tools import SETS, made, real

BOUND = [
    name for name in sorted(BUILDERS) if name not in ("one token", "scatter batch index", "scatter compute context")
]
REAL = ("qeff-llama", "qeff-llama-subfn", "optimum-gpt2", "torch-flat-llama", "genai-gemma2-fp32-cpu")


@pytest.mark.parametrize("spec", ["Prefill", "Decode"])
@pytest.mark.parametrize("name", BOUND)
def test_bound_graphs_are_static_and_compute_the_same(name: str, spec: str) -> None:
    result = made(name, f"{SETS},bind{{spec={spec}}}")
    graph = result.graphs["model"].graph
    values = [*graph.inputs, *graph.outputs, *(v for node in graph for v in node.outputs if v.shape is not None)]
    assert all(value.shape is not None and value.shape.is_static() for value in values)
    assert [item.name for item in Manifest.of(result.specializations).specializations] == [spec]
    assert bound_in(result.graphs["model"])
    (proof,) = prove_program(result, Manifest.of(result.specializations).specializations)
    assert proof.sound
    report = verify(Program({"model": BUILDERS[name]()}), result)
    assert report.verdict is Verdict.EQUAL
    assert report.runs


def test_a_bound_graph_refuses_other_sizes() -> None:
    result = made("append", f"{SETS},bind{{spec=Decode}}")
    (spec,) = Manifest.of(result.specializations).specializations
    other = spec.model_copy(update={"binding": {**spec.binding, "batch_size": 2}})
    (proof,) = prove_program(result, [other])
    assert [(f.item, f.nearest) for f in proof.all_failures] == [("batch_size", "batch_size = 1")]


def test_bind_writes_into_the_graph_it_belongs_to_alone() -> None:
    program = Program({"a": append_decoder(), "b": append_decoder()})
    PassManager(parse_pipeline(f"{SETS},bind{{spec=Decode}}"))
    specs = [
        Specialization(name=name, role=SpecRole.DECODE, graph=name, binding={"batch_size": 1, "sequence_length": 1,
                       "past_sequence_length": 7}) for name in ("a", "b")
    ]  # fmt: skip
    program.specializations = list(specs)
    PassManager(parse_pipeline("bind{spec=a}")).run(program)
    assert bound_in(program.graphs["a"])
    assert not bound_in(program.graphs["b"])
    assert [item.name for item in Manifest.of(program.specializations).specializations] == ["a", "b"]


@pytest.mark.parametrize("name", REAL)
def test_real_graphs_are_bound_and_compute_the_same(name: str) -> None:
    path = real(name)
    result = PassManager(parse_pipeline(f"{SETS},bind{{spec=Decode}}")).run(Program.load(path))
    report = verify(Program.load(path), result)
    assert report.verdict is Verdict.EQUAL
    assert report.runs


CLONES = "clone-decode{k=0,4 ctx=32 prefill=8 static=false}"


def test_a_clone_is_bound_by_itself() -> None:
    program = made("append", f"{CLONES},bind{{spec=decode_k4}}")
    assert bound_in(program.graphs["decode_k4"])["sequence_length"] == 5
    assert not bound_in(program.graphs["prefill"])
    specs = Manifest.of(program.specializations).specializations
    assert [item.name for item in specs] == ["prefill", "decode_k0", "decode_k4"]
    assert all(proof.sound for proof in prove_program(program, specs, claims=program.claims))


def test_a_specialization_of_no_graph_is_named() -> None:
    spec = Specialization(name="Decode", role=SpecRole.DECODE, graph="other", binding={})
    program = Program({"model": append_decoder()}, specializations=[spec])
    (proof,) = prove_program(program, [spec])
    assert [failure.item for failure in proof.all_failures if failure.rule == "set"] == ["other", "specializations"]
    with pytest.raises(UnknownNameError, match="unknown graph 'other'"):
        PassManager(parse_pipeline("bind{spec=Decode}")).run(program)


def test_a_name_that_no_specialization_has_is_answered_with_near_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown specialization 'Decoder'.*Did you mean 'Decode'"):
        made("append", f"{SETS},bind{{spec=Decoder}}")
    with pytest.raises(UnknownNameError, match=r"put specialize\{…\} before"):
        made("append", "bind{spec=Decode}")


def test_the_sizes_come_back_from_disk_and_are_still_proved(tmp_path: Path) -> None:
    result = made("scatter", f"{SETS},bind{{spec=Prefill}}")
    result.save(tmp_path / "out")
    again = Program.load(tmp_path / "out")
    assert bound_in(again.graphs["model"]) == bound_in(result.graphs["model"])
    (spec,) = Manifest.of(again.specializations).specializations
    assert spec.name == "Prefill"
    (proof,) = prove_program(again, [spec])
    assert proof.sound
