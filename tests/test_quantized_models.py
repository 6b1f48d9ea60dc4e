"""Exporters' models calibrated, quantized in every clone and compared, where ONNX_PASSES_MODELS names their folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.quantization import print_encodings
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.calibrate.calibrate import Plan, calibrate
from onnx_llm_passes.runtime.compare.programs import compare_programs

MODELS = os.environ.get("ONNX_PASSES_MODELS")
pytestmark = pytest.mark.skipif(MODELS is None, reason="ONNX_PASSES_MODELS names no folder of exported models")
TEXTS = [np.random.default_rng(5).integers(1, 60, length) for length in (40, 24)]
LAYOUTS = {  # a model, and what makes its caches another layout first
    "append": ("optimum-llama/model.onnx", ""),
    "append of another exporter": ("torch-flat-qwen3-sdpa/model.onnx", ""),
    "scatter": ("qeff-llama/LlamaForCausalLM.onnx", ""),
    "scatter inside functions": ("qeff-llama-subfn/LlamaForCausalLM.onnx", "ir-inline"),
    "delta": ("optimum-llama/model.onnx", "convert-states{to=delta transpose_keys=true}"),
    "fused": ("genai-llama-fp32-cpu/model.onnx", ""),
    "fused halves": ("genai-llama-fp16-dml/model.onnx", ""),
}
CLONED = "convert-states,keep-last-logits{symbol=num_logits_to_keep},clone-decode{k=0,2 prefill=8 ctx=48}"


def loaded(path: str, pipeline: str = "") -> Program:
    assert MODELS is not None
    program = Program.load(Path(MODELS) / path)
    if pipeline:
        PassManager(parse_pipeline(pipeline)).run(program)
    return program


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_calibrated_quantized_and_close(layout: str, tmp_path: Path) -> None:
    path, first = LAYOUTS[layout]
    by_chunk, by_step = (calibrate(loaded(path, first), TEXTS, Plan(chunk=chunk)) for chunk in (16, 1))
    file = tmp_path / "encodings.json"
    found = []
    for table in (by_chunk, by_step):
        file.write_text(print_encodings(table), encoding="utf-8")
        program = loaded(path, ",".join(part for part in (first, f'quantize{{file="{file}"}}') if part))
        found.append(compare_programs(loaded(path), program, TEXTS, chunk=1).row("logits").measures)
    assert found[0]["sqnr"] > 25
    assert abs(found[0]["sqnr"] - found[1]["sqnr"]) <= 0.3
    assert abs(found[0]["kl"] - found[1]["kl"]) <= 0.05 * found[1]["kl"] + 1e-8


@pytest.mark.parametrize("layout", ["append", "scatter", "fused"])
def test_every_clone_takes_the_same_encodings(layout: str, tmp_path: Path) -> None:
    path, _ = LAYOUTS[layout]
    file = tmp_path / "encodings.json"
    file.write_text(print_encodings(calibrate(loaded(path), TEXTS, Plan(chunk=16))), encoding="utf-8")
    loaded(path, f'{CLONED},quantize{{file="{file}"}}').save(tmp_path / "out")
    clones = Program.load(tmp_path / "out")
    for graph in ("prefill", "decode_k0", "decode_k2"):
        assert compare_programs(loaded(path), clones, TEXTS, graph=graph).row("logits").measures["sqnr"] > 25


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("hf-dyn-mamba/decode.onnx", "cannot be carried from chunk to chunk"),
        ("hf-dyn-lfm2/decode.onnx", "cannot be carried from chunk to chunk"),
        ("genai-gemma2-fp32-cpu/model.onnx", "is a ring"),
        ("torch-static-llama/model.onnx", "has a fixed length"),
        ("qeff-qwen3vl-kv/Qwen3VLForConditionalGeneration.onnx", "nothing says what to feed"),
        ("qeff-whisper/WhisperForConditionalGeneration.onnx", "cannot be carried from chunk to chunk"),
    ],
)
def test_what_cannot_be_fed_is_refused_with_a_reason(path: str, reason: str) -> None:
    with pytest.raises(PassRefused, match=reason):
        calibrate(loaded(path), TEXTS)
