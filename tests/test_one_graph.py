"""One graph with a binding for each role and length: what is written, run, refused, and when it is graphs instead."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused, UsageError
from onnx_llm_passes.ir.manifests.deployment import DEPLOYMENTS, Form, deployment_of
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.program.unrolled import unrolled
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.decode.decoder import Decoder
from onnx_llm_passes.runtime.decode.generate import plain
from onnx_llm_passes.runtime.samples.samples import append_decoder
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

from .builders import BUILDERS
from .manifest_tools import real

SIZES = "k=0,2 prefill=8 ctx=32"
RECORDED = os.environ.get("ONNX_PASSES_CONFORMANCE", "")


def run(pipeline: str, program: Program | None = None) -> Program:
    return PassManager(parse_pipeline(pipeline)).run(program or Program({"model": append_decoder()}))


def entries(program: Program, file: str = "specializations.json") -> list[dict[str, Any]]:
    return json.loads(program.artifacts[file])["specializations"]


@pytest.mark.parametrize("target", sorted(DEPLOYMENTS.keys() - {"openvino", "coreml"}))
def test_auto_is_what_the_target_takes(target: str) -> None:
    program = run(f"speculative{{{SIZES} target={target}}}")
    one = deployment_of(target).form is Form.SPECIALIZATIONS
    assert program.names == (["model"] if one else ["prefill", "decode_k0", "decode_k2"])
    calls = json.loads(program.artifacts["compile_args.json"])["commands"]
    assert len({call["graph"] for call in calls}) == (1 if one else len(calls) and 3)


@pytest.mark.parametrize("more", ["fold=true", "static=false", "form=graphs"])
def test_what_one_graph_cannot_be_is_graphs(more: str) -> None:
    assert run(f"speculative{{{SIZES} {more}}}").names == ["prefill", "decode_k0", "decode_k2"]


def test_folding_one_graph_is_refused_before_anything_runs() -> None:
    with pytest.raises(UsageError, match=r"cannot be folded for each.*form=graphs"):
        parse_pipeline("clone-decode{ctx=32 fold=true form=specializations}")


def test_branches_are_one_graph_that_picks() -> None:
    program = run(f"speculative{{{SIZES} form=branches}}")
    assert program.names == ["model"]
    assert any(node.op_type == "If" for node in program.graphs["model"].graph)
    assert verify(Program({"model": append_decoder()}), program).equal
    with pytest.raises(UsageError, match=r"form=branches takes no flags"):
        parse_pipeline(f'speculative{{{SIZES} form=branches flags="-mos=1"}}')


@pytest.mark.parametrize("name", ["append", "scatter", "scatter batch index", "tensor scatter"])
def test_every_binding_is_played(name: str, tmp_path: Path) -> None:
    run(f"speculative{{{SIZES}}}", Program({"model": BUILDERS[name]()})).save(tmp_path / "p")
    report = verify(Program({"model": BUILDERS[name]()}), Program.load(tmp_path / "p"))
    assert report.verdict is Verdict.EQUAL, report.first_difference
    played = {case.claim for case in report.cases if case.ran}
    assert played >= {"Prefill", "Decode_0", "Decode_1"}


def test_a_binding_that_differs_is_told_by_its_name(tmp_path: Path) -> None:
    run(f"speculative{{{SIZES}}}").save(tmp_path / "p")
    program = Program.load(tmp_path / "p")
    weight = program.graphs["model"].graph.initializers["lm_head.weight"]
    assert weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1.001))
    report = verify(Program({"model": append_decoder()}), program)
    assert report.verdict is Verdict.DIFFERENT
    assert {case.claim for case in report.cases if not case.equal} >= {"Prefill", "Decode_0", "Decode_1"}


def test_one_session_runs_all_bindings_and_gives_the_tokens_of_plain_decoding(tmp_path: Path) -> None:
    run(f"speculative{{{SIZES}}}").save(tmp_path / "p")
    program = Program.load(tmp_path / "p")
    decoder = Decoder(program)
    assert decoder.ks == (0, 2) and decoder.ctx == 32
    assert [graph.name for graph in decoder.graphs] == ["Prefill", "Decode_0", "Decode_1"]
    assert len({id(graph.session) for graph in decoder.graphs}) == 1
    prompt = np.random.default_rng(0).integers(0, 60, 11).tolist()
    reference = plain(Decoder(Program({"model": append_decoder()}), ctx=32), prompt, 12)
    assert plain(decoder, prompt, 12) == reference


def test_both_forms_of_the_manifest_say_the_same() -> None:
    program = run(f"speculative{{{SIZES} manifest=named,flat}}")
    flat = entries(program, "specializations.flat.json")
    assert [entry["symbols"] for entry in entries(program)] == flat
    first = run(f"speculative{{{SIZES} manifest=flat,named}}")
    assert entries(first) == flat and entries(first, "specializations.named.json") == entries(program)
    with pytest.raises(UsageError, match=r"one form of manifest.*Leave manifest= out"):
        run(f"speculative{{{SIZES} target=qnn manifest=named}}")


def test_flags_reach_the_compiler_and_odd_ones_are_told() -> None:
    program = run(f'speculative{{{SIZES} flags="-aic-num-cores=16 -mos 1 -mxfp6-matmull -aic-hw"}}')
    (call,) = json.loads(program.artifacts["compile_args.json"])["commands"]
    assert call["arguments"][-4:] == ["-aic-num-cores=16", "-mos", "1", "-mxfp6-matmull"]
    assert call["arguments"].count("-aic-hw") == 1
    (warning,) = next(record.warnings for record in program.history if record.name == "emit-manifest")
    assert "did you mean -mxfp6-matmul?" in warning


@pytest.mark.parametrize(
    ("flags", "why"),
    [("-m=other.onnx", "written by the manifest itself"), ("fast", "is no flag"), ("'-mos", "as a shell reads them")],
)
def test_flags_that_are_none_are_refused(flags: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        run(f'speculative{{{SIZES} flags="{flags}"}}')


def test_every_length_of_context_goes_with_every_k() -> None:
    sizes = "clone-decode{k=0,2 prefill=8 ctx=32 ccl=16,32 form=specializations}"
    model = BUILDERS["scatter compute context"]()
    program = run(f"keep-last-logits{{symbol=num_logits_to_keep}},{sizes},check", Program({"model": model}))
    pairs = {(s.k, s.binding["comp_ctx_lengths"]) for s in program.specializations if s.k is not None}
    assert pairs == {(0, 16), (0, 32), (2, 16), (2, 32)}
    assert [s.name for s in program.specializations] == [
        "Prefill_0", "Prefill_1", "Decode_0", "Decode_1", "Decode_2", "Decode_3",
    ]  # fmt: skip
    assert len(unrolled(program).shared) == 6


def test_states_that_a_device_cannot_keep_are_refused() -> None:
    with pytest.raises(PassRefused, match=r"caches grow.*convert-states\{names=retained\}"):
        run("clone-decode{ctx=32 prefill=8 target=qaic form=specializations},emit-manifest{target=qaic}")
    with pytest.raises(PassRefused, match=r"cannot pair states"):
        run(f"speculative{{{SIZES} names=keep}}")


def _target_models() -> list[dict[str, Any]]:
    """Recorded compile calls of one batch with a list of K, or one K."""
    if not RECORDED:
        return []
    cases = [json.loads(line)["case"] for line in Path(RECORDED).read_text(encoding="utf-8").splitlines()]
    asked = [case for case in cases if "num_speculative_tokens" in case.get("compile", {}) and "named" in case]
    sizes = {"num_speculative_tokens", "prefill_seq_len", "ctx_len"}
    kinds = ((case, (case["init"].get("qaic_config") or {}).get("speculative_model_type")) for case in asked)
    return [case for case, kind in kinds if kind == "target" and case["compile"].keys() == sizes]


@pytest.mark.skipif(not RECORDED, reason="ONNX_PASSES_CONFORMANCE names no cases")
def test_files_for_a_k_list_are_those_of_the_exporter_byte_for_byte() -> None:
    source = real("qeff-llama-tlm") / "LlamaForCausalLM.onnx"
    if not source.exists():
        pytest.skip("ONNX_PASSES_MODELS holds no graph exported for speculation")
    compared = 0
    for case in _target_models():
        asked = case["compile"]
        ks, prefill = np.atleast_1d(asked["num_speculative_tokens"]).tolist(), asked["prefill_seq_len"]
        if max(ks) + 1 >= prefill:
            continue  # runs that decode on the prefill's graph there; here it is kept, with its own logits
        sizes = f"k={','.join(map(str, ks))} prefill={prefill} ctx={asked['ctx_len']}"
        program = run(f"speculative{{{sizes}}}", Program.load(source))
        text = json.dumps({"specializations": case["named"]}, indent=4, separators=(",", ":"), sort_keys=True)
        assert program.artifacts["specializations.json"] == text, case["id"]
        compared += 1
    assert compared
