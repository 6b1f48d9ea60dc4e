"""convert-states on exporters' models, where ONNX_PASSES_MODELS names their folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import OnnxPassesError
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.convert_states import ConvertStates, Ops

from .convert_tools import CLOSE, compare, convert

MODELS = os.environ.get("ONNX_PASSES_MODELS")
pytestmark = pytest.mark.skipif(MODELS is None, reason="ONNX_PASSES_MODELS names no folder of exported models")
CONVERTED = (
    "optimum-llama/model.onnx optimum-gpt2/model.onnx optimum-gemma3/model.onnx optimum-mistralsw/model.onnx "
    "optimum-qwen3/model.onnx optimum-llama-O2/model.onnx torch-flat-llama/model.onnx torch-flat-gemma3/model.onnx "
    "torch-flat-qwen3-sdpa/model.onnx torch-ts-llama/model.onnx torch-ts-qwen2/model.onnx "
    "hf-dynmulti-qwen3/decode.onnx hf-dyn-llama/decode.onnx"
).split()


def exported(path: str) -> ir.Model:
    """The first graph of a file in the models' folder."""
    assert MODELS is not None
    return next(iter(Program.load(Path(MODELS) / path).graphs.values()))


@pytest.mark.parametrize("ops", [Ops.ONNX, Ops.CTX], ids=lambda ops: ops.value)
@pytest.mark.parametrize("path", CONVERTED)
def test_exported_models_become_scatter(path: str, ops: Ops) -> None:
    before = exported(path)
    assert compare(before, convert(before, ops=ops), batch=2, width=6) <= CLOSE


@pytest.mark.parametrize("path", ["torch-static-llama/model.onnx", "hf-dynmulti-qwen3/prefill.onnx"])
def test_exported_models_are_refused_for_a_reason(path: str) -> None:
    with pytest.raises(OnnxPassesError, match=r"is baked into|has no input"):
        ConvertStates().call(exported(path))


def test_cross_attention_stays() -> None:
    before = exported("optimum-whisper-automatic/decoder_with_past_model.onnx")
    rng = np.random.default_rng(4)
    fixed = [v.name for v in before.graph.inputs if ".encoder." in (v.name or "")]
    others = {name or "": rng.normal(size=(3, 4, 7, 16)).astype(np.float32) for name in fixed}
    assert compare(before, convert(before), others=others) <= CLOSE


def test_fused_states_need_no_conversion() -> None:
    result = ConvertStates().call(exported("genai-llama-fp32-cpu/model.onnx"))
    assert not result.modified
    assert "need no conversion" in result.notes[0]
