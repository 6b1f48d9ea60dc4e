"""Other runtimes read what the presets write of real exporters' models, compile it static, and compute the same."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from onnx_llm_passes.ir.core.errors import OnnxPassesError

from .consumer_outputs import QUICK, built, outputs_for
from .consumer_tools import CONSUMERS, answers, gap, reason

MODELS = os.environ.get("ONNX_PASSES_MODELS")
FEW = (
    "genai-llama-fp32-cpu",
    "genai-qwen3-int4-cpu",
    "hf-dynmulti-qwen3",
    "optimum-gpt2",
    "qeff-llama-subfn",
    "torch-ts-qwen2",
)
SHARE = {"openvino": 1.0, "iree": 0.95, "tract": 0.9}  # of the outputs of all models that a runtime must take

needs_models = pytest.mark.skipif(MODELS is None, reason="ONNX_PASSES_MODELS names no folder of exported models")


def usable(name: str) -> None:
    """Skips where a runtime is not installed."""
    if missing := CONSUMERS[name].missing:
        pytest.skip(missing)


def models() -> list[Path]:
    return sorted(Path(MODELS).glob("*/*.onnx")) if MODELS else []


@needs_models
@pytest.mark.parametrize("model", FEW)
@pytest.mark.parametrize(("consumer", "output"), [("openvino", name) for name in QUICK] + [("iree", "single-shot")])
def test_a_preset_s_output_is_compiled_and_computes_the_same(
    consumer: str, output: str, model: str, tmp_path: Path
) -> None:
    usable(consumer)
    path = next(path for path in models() if path.parent.name == model)
    program = built(path, output, CONSUMERS[consumer].target)
    program.save(tmp_path / "out")
    found = list(answers(program, tmp_path / "out", CONSUMERS[consumer]))
    assert len(found) == len(program.names)
    assert not [f"{answer.graph}: {answer.why}" for answer in found if answer.why]


@needs_models
@pytest.mark.slow
@pytest.mark.parametrize("consumer", CONSUMERS)
def test_of_all_outputs_of_all_models_a_share_is_taken(consumer: str, tmp_path: Path) -> None:
    usable(consumer)
    taken, refused = 0, list[str]()
    for number, (path, output) in enumerate((path, output) for path in models() for output in outputs_for(consumer)):
        try:
            program = built(path, output, CONSUMERS[consumer].target)
        except OnnxPassesError:
            continue  # docs/coverage.md says what is refused of which model
        program.save(tmp_path / str(number))
        for answer in answers(program, tmp_path / str(number), CONSUMERS[consumer]):
            taken += not answer.why
            refused += [f"{path.parent.name}, {output}, {answer.graph}: {answer.why}"] if answer.why else []
    assert taken >= SHARE[consumer] * (taken + len(refused)), "\n".join(refused)


def test_a_missing_or_reshaped_output_is_no_answer() -> None:
    ones = np.ones((2, 3), np.float32)
    assert gap({"y": ones}, {"y": ones + 1e-3}) == pytest.approx(1e-3, rel=1e-3)
    assert gap({"y": ones}, {}) == gap({"y": ones}, {"y": ones.T}) == float("inf")


def test_the_line_that_says_what_is_refused_is_told_without_its_place() -> None:
    text = "while compiling\n<stdin>:67:11: error: failed to legalize operation 'torch.operator': %148 = more\nnext"
    assert reason(text) == "error: failed to legalize operation 'torch.operator'"
