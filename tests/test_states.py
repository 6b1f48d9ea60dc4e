"""States are found by structure: every idiom, every exporter, whatever the names."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.states import Layout, Pairing, find_states

from .append_graphs import append_cut
from .builders import BUILDERS, OTHERS
from .renaming import rename_everything

MODELS = os.environ.get("ONNX_PASSES_MODELS")

EXPECTED: dict[str, dict[str, int]] = {
    "genai-gemma2-fp32-cpu/model.onnx": {"fused key": 2, "fused value": 2},
    "genai-lfm2-fp32-cpu/model.onnx": {"fused key": 2, "fused value": 2, "fused conv": 2},
    "genai-whisper-fp32-cpu/decoder.onnx": {"fused key": 2, "fused value": 2, "fixed cross input only": 4},
    "genai-whisper-fp32-cpu/encoder.onnx": {},
    "hf-dyn-lfm2/decode.onnx": {"append key": 2, "append value": 2, "recurrent conv": 2},
    "hf-dyn-lfm2/prefill.onnx": {
        "append key output only": 2,
        "append value output only": 2,
        "recurrent conv output only": 2,
    },
    "hf-dyn-mamba/decode.onnx": {"recurrent conv": 2, "recurrent recurrent": 2},
    "hf-dyn-mamba/prefill.onnx": {"recurrent conv output only": 2, "recurrent recurrent output only": 2},
    "hf-staticcache-llama/decode.onnx": {"scatter key": 2, "scatter value": 2, "recurrent length": 2},
    "optimum-gemma3/model.onnx": {"append key": 6, "append value": 6},
    "optimum-qwen3-nopast/model.onnx": {},
    "optimum-whisper-automatic/decoder_with_past_model.onnx": {
        "append key": 2,
        "append value": 2,
        "fixed cross input only": 4,
    },
    "qeff-llama-subfn/LlamaForCausalLM.onnx": {"scatter key": 2, "scatter value": 2},
    "qeff-qwen3vl-kv/Qwen3VLForConditionalGeneration.onnx": {"scatter key": 4, "scatter value": 4},
    "qeff-whisper/WhisperForConditionalGeneration.onnx": {"scatter key": 2, "scatter value": 2, "fixed cross": 4},
}
"""What a folder of exported models holds, where it has these; others only have to load and be classified."""


def summary(model: ir.Model) -> dict[str, int]:
    def text(state: object) -> str:
        assert hasattr(state, "layout")
        side = "" if state.pairing is Pairing.BOTH else f" {state.pairing.value}"  # type: ignore[attr-defined]
        return f"{state.layout.value} {state.kind}{side}"  # type: ignore[attr-defined]

    return dict(Counter(text(state) for state in find_states(model)))


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_every_idiom_pairs_all_its_states(build: Callable[[], ir.Model]) -> None:
    states = find_states(build())
    assert states
    assert all(state.pairing is Pairing.BOTH and state.axis is not None for state in states)
    assert {state.kind for state in states} == {"key", "value"}
    assert {state.layout for state in states} <= {Layout.APPEND, Layout.SCATTER}


@pytest.mark.parametrize("name", OTHERS)
def test_half_pairs_are_told_and_nothing_is_made_up(name: str) -> None:
    alone = [state for state in find_states(OTHERS[name]()) if state.pairing is not Pairing.BOTH]
    assert len(alone) == (1 if name.endswith("only") else 0)


@pytest.mark.parametrize("name", BUILDERS)
def test_names_do_not_matter(name: str) -> None:
    model = BUILDERS[name]()
    before = [(s.layout, s.pairing, s.kind, s.axis) for s in find_states(model)]
    rename_everything(model, random.Random(0))
    assert [(s.layout, s.pairing, s.kind, s.axis) for s in find_states(model)] == before


def test_names_tell_the_layer() -> None:
    layers = [state.layer for state in find_states(BUILDERS["append"]())]
    assert layers == [0, 0, 1, 1]


def test_new_rows_that_are_cut_out_again_are_no_window() -> None:
    assert summary(append_cut()) == {"delta key": 1, "delta value": 1}


def test_states_of_rnns_are_found() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 18]>
        g (float[S, B, 3] x, float[2, B, 4] h, float[1, B, 4] c) => (float[2, B, 4] hn, float[1, B, 4] cn)
        <float[1, 16, 3] w, float[1, 16, 4] r, float[1, 12, 3] w2, float[1, 12, 4] r2> {
            h1, h2 = Split <axis = 0, num_outputs = 2> (h)
            y, yh, cn = LSTM <hidden_size = 4> (x, w, r, , , h1, c)
            z, gh = GRU <hidden_size = 4> (x, w2, r2, , , h2)
            hn = Concat <axis = 0> (yh, gh)
        }"""
    )
    found = [(s.input.name, s.output.name, s.layout) for s in find_states(model) if s.input and s.output]
    assert found == [("h", "hn", Layout.RECURRENT), ("c", "cn", Layout.RECURRENT)]


def test_states_of_rnns_are_found_where_sizes_of_their_ends_are_made_up() -> None:
    # torch's TorchScript exporter writes LSTMhn_dim_1 for the batch of what an LSTM ends as (silero-vad 6.2)
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 18]>
        g (float[S, 1, 3] x, float[1, 1, 4] h, float[1, 1, 4] c)
            => (float[S, N0, 1, 4] y, float[1, N1, 4] hn, float[1, N2, 4] cn)
        <float[1, 16, 3] w, float[1, 16, 4] r> {
            y, hn, cn = LSTM <hidden_size = 4> (x, w, r, , , h, c)
        }"""
    )
    found = [(s.input.name, s.output.name, s.layout) for s in find_states(model) if s.input and s.output]
    assert found == [("h", "hn", Layout.RECURRENT), ("c", "cn", Layout.RECURRENT)]


def test_finding_changes_nothing() -> None:
    model = BUILDERS["scatter"]()
    before = ir.to_onnx_text(model)
    find_states(model)
    assert ir.to_onnx_text(model) == before


def exported() -> list[str]:
    root = Path(MODELS) if MODELS else None
    return sorted(path.relative_to(root).as_posix() for path in root.glob("*/*.onnx")) if root else []


@pytest.mark.skipif(not exported(), reason="ONNX_PASSES_MODELS names no folder of exported models")
def test_exported_models_are_classified() -> None:
    wrong: dict[str, dict[str, int]] = {}
    for name in exported():
        found = summary(ir.load(Path(MODELS or "") / name))
        if name in EXPECTED and found != EXPECTED[name]:
            wrong[name] = found
    assert not wrong


@pytest.mark.skipif(not exported(), reason="ONNX_PASSES_MODELS names no folder of exported models")
def test_exported_models_renamed_give_the_same_states() -> None:
    for name in exported():
        model = ir.load(Path(MODELS or "") / name)
        before = Counter((s.layout, s.pairing, s.axis) for s in find_states(model))
        rename_everything(model, random.Random(0))
        assert Counter((s.layout, s.pairing, s.axis) for s in find_states(model)) == before, name
