"""tap-hidden: the rows where extract-layer cuts, the same in every clone, and what verify says of them."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused, UsageError
from onnx_llm_passes.ir.program.contracts.heads import HiddenTapped
from onnx_llm_passes.ir.program.contracts.sizes import LayerCut
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.passes.tap_hidden import TapHidden
from onnx_llm_passes.runtime.decode.decoder import Decoder
from onnx_llm_passes.runtime.decode.generate import Settings, generate
from onnx_llm_passes.runtime.samples.blocks import Tiny
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder
from onnx_llm_passes.runtime.verify.report import VerifyReport
from onnx_llm_passes.runtime.verify.verify import Verdict, verify

from .layer_graphs import skip_norm_decoder
from .renaming import rename_everything
from .text_graphs import text_model

THREE = Tiny(layers=3)
DECODERS: dict[str, Callable[[], ir.Model]] = {
    "append": functools.partial(append_decoder, THREE),
    "scatter": functools.partial(scatter_decoder, THREE),
    "fused": functools.partial(skip_norm_decoder, 3),
}
decoders = pytest.mark.parametrize("name", DECODERS)
KEPT = "keep-last-logits{symbol=n}"
BOTH = "tap-hidden{layers=1,-1 names=low,high}"


def piped(model: ir.Model, pipeline: str) -> Program:
    return PassManager(parse_pipeline(pipeline)).run(Program({"model": model}))


def outputs_of(program: Program, graph: str) -> list[str]:
    return [value.name or "" for value in program.graph(graph).graph.outputs]


def taps_of(program: Program) -> list[HiddenTapped]:
    return [link for link in program.contracts if isinstance(link, HiddenTapped)]


def compared(report: VerifyReport) -> set[str]:
    """What was compared wherever anything was."""
    sets = [{found.output for found in case.outputs} for case in report.cases if case.outputs]
    return set.intersection(*sets) if sets else set()


@decoders
def test_the_rows_are_those_that_leave_a_layer_that_is_cut_out(name: str) -> None:
    taps = taps_of(piped(DECODERS[name](), "tap-hidden{layers=0,1,2}"))
    cuts: list[str] = []
    for index in range(3):
        cut = piped(DECODERS[name](), f"clone-decode{{k=0 ctx=32}},extract-layer{{index={index}}}")
        cuts += [link.result for link in cut.contracts if isinstance(link, LayerCut)]
    assert len(cuts) == 3
    known = [(tap.hidden, cut) for tap, cut in zip(taps, cuts, strict=True) if not tap.beside]
    assert len(known) == (2 if name == "fused" else 3)
    assert all(hidden == cut for hidden, cut in known)


@decoders
@pytest.mark.parametrize(
    "pipeline",
    [
        BOTH,
        f"single-shot,{BOTH}",
        f"{BOTH},single-shot",
        f"{BOTH},{KEPT},clone-decode{{k=0,3 prefill=8 ctx=32}}",
        f"{KEPT},clone-decode{{k=0,3 prefill=8 ctx=32}},{BOTH}",
        f"speculative{{k=0,2 prefill=8 ctx=32}},{BOTH}",
        f"convert-states{{to=scatter}},{BOTH}",
        f"lower,{BOTH}",
    ],
)
def test_verify_compares_the_rows_in_every_graph(name: str, pipeline: str) -> None:
    program = piped(DECODERS[name](), pipeline)
    for graph in program.names:
        assert outputs_of(program, graph)[-2:] == ["low", "high"]
    report = verify(Program({"model": DECODERS[name]()}), program)
    assert report.verdict is Verdict.EQUAL, report.first_difference
    found = {output.output for case in report.cases for output in case.outputs}
    assert {"low", "high"} <= found


@decoders
@pytest.mark.parametrize(
    "pipeline", [BOTH, f"{BOTH},clone-decode{{k=0 prefill=8 ctx=32}}", f"convert-states{{to=append}},{BOTH}"]
)
def test_verify_tells_rows_of_another_layer(name: str, pipeline: str) -> None:
    program = piped(DECODERS[name](), pipeline)
    model = next(iter(program.graphs.values()))
    low = next(value for value in model.graph.outputs if value.name == "low")
    copy = low.producer()
    assert copy is not None
    maker = copy.inputs[0].producer() if copy.op_type == "Identity" and copy.inputs[0] is not None else copy
    assert maker is not None
    if copy is maker:
        pytest.skip("the rows have no copy that could be led astray")
    copy.replace_input_with(0, next(value for value in maker.inputs if value is not None and value.producer()))
    report = verify(Program({"model": DECODERS[name]()}), program)
    assert report.verdict is Verdict.DIFFERENT


def test_without_a_cache_layers_end_where_they_did_with_one() -> None:
    model = append_decoder(THREE)
    before = taps_of(piped(model, "simplify,tap-hidden{layers=0,1,2}"))
    after = taps_of(piped(append_decoder(THREE), "single-shot,tap-hidden{layers=0,1,2}"))
    assert [tap.hidden for tap in after] == [tap.hidden for tap in before]


@pytest.mark.parametrize("kind", ["bert", "e5", "modernbert", "qwen3", "reranker"])
def test_embedders_have_layers_too(kind: str) -> None:
    program = piped(
        text_model(kind),
        "tap-hidden{layers=-1 names=middle},pool{kind=mean from=last_hidden_state}"
        if kind != "reranker"
        else "tap-hidden{layers=0 names=middle},keep-last-logits{n=1},select-vocab{tokens=3,5 as=difference}",
    )
    assert "middle" in outputs_of(program, "model")
    report = verify(Program({"model": text_model(kind)}), program)
    assert report.verdict is Verdict.EQUAL, report.first_difference
    assert "middle" in compared(report)


def test_names_mean_nothing() -> None:
    model = append_decoder(THREE)
    rename_everything(model, random.Random(1))
    program = piped(model, "tap-hidden{layers=0,-1}")
    assert len([name for name in outputs_of(program, "model") if name.startswith("hidden_states.")]) == 2


@pytest.mark.parametrize("behind", ["keep-last-logits{n=1}", "argmax-tail", "keep-last-logits{n=1},argmax-tail"])
def test_generation_goes_on_beside_the_rows(behind: str) -> None:
    plain, tapped = (piped(append_decoder(THREE), text) for text in (behind, f"{BOTH},{behind}"))
    found = [generate(Decoder(program), [[3, 1, 4, 1, 5]], Settings(6)).tokens for program in (plain, tapped)]
    assert found[0] == found[1]


def test_contracts_are_kept_in_the_file(tmp_path: Path) -> None:
    ir.save(append_decoder(THREE), tmp_path / "model.onnx")
    program = PassManager(parse_pipeline(f"{BOTH},rename-io{{map=low:draft_input}}")).run(
        Program.load(tmp_path / "model.onnx")
    )
    program.save(tmp_path / "out")
    report = verify(Program.load(tmp_path / "model.onnx"), Program.load(tmp_path / "out"))
    assert report.verdict is Verdict.EQUAL, report.first_difference
    assert {"draft_input", "high"} <= compared(report)


@pytest.mark.parametrize(("layers", "names"), [((), ()), ((0, 1), ("one", "one")), ((0,), ("a", "b"))])
def test_what_is_asked_for_is_checked_at_once(layers: tuple[int, ...], names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        TapHidden(layers, names)


MODELS = os.environ.get("ONNX_PASSES_MODELS")
EXPORTED = {  # a folder of exported models, its file, and what becomes of it
    "genai-llama-fp32-cpu/model": BOTH.replace("1,-1", "0,-1"),
    "genai-lfm2-fp32-cpu/model": "tap-hidden{layers=0,2,-1},clone-decode{k=0,3 prefill=8 ctx=32}",
    "optimum-gemma3/model": "speculative{k=0,3 prefill=8 ctx=32},tap-hidden{layers=1,-2}",
    "optimum-qwen3emb-feat/model": "tap-hidden{layers=0,-1}",
    "optimum-qwen3-nopast/model": "tap-hidden{layers=0,-1},keep-last-logits{n=1}",
    "hf-dyn-mamba/decode": "tap-hidden{layers=0,-1}",
    "torch-flat-qwen3-sdpa/model": "single-shot,tap-hidden{layers=0,-1}",
    "qeff-llama-subfn/LlamaForCausalLM": "tap-hidden{layers=0,-1}",
    "qeff-qwen3vl-kv/Qwen3VLForConditionalGeneration": "tap-hidden{layers=0,-1}",
}


@pytest.mark.skipif(MODELS is None, reason="ONNX_PASSES_MODELS names no folder of models")
@pytest.mark.parametrize("path", EXPORTED)
def test_exported_models(path: str) -> None:
    file = Path(MODELS or "") / f"{path}.onnx"
    if not file.is_file():
        pytest.skip(f"{path}.onnx is not in the folder of models")
    program = PassManager(parse_pipeline(EXPORTED[path])).run(Program.load(file))
    report = verify(Program.load(file), program)
    assert report.verdict is Verdict.EQUAL, report.first_difference
    found = {output.output for case in report.cases for output in case.outputs}
    assert {tap.output for tap in taps_of(program)} <= found


@pytest.mark.skipif(MODELS is None, reason="ONNX_PASSES_MODELS names no folder of models")
@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("optimum-whisper-automatic/decoder_model_merged", "inside a branch of an If"),
        ("optimum-whisper-automatic/encoder_model", "no input holds tokens"),
    ],
)
def test_exported_models_without_such_layers(path: str, wrong: str) -> None:
    file = Path(MODELS or "") / f"{path}.onnx"
    if not file.is_file():
        pytest.skip(f"{path}.onnx is not in the folder of models")
    with pytest.raises(PassRefused, match=wrong):
        PassManager([TapHidden((0,))]).run(Program.load(file))
