"""Damage to sound pairs of a graph and a manifest: all of it is refused by name, and nothing sound is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_llm_passes.ir.core.errors import OnnxPassesError
from onnx_llm_passes.ir.core.specialization import Specialization, SpecRole
from onnx_llm_passes.ir.interface.dimensions import DimensionAnalysis, analyze_dimensions
from onnx_llm_passes.ir.manifests.read_any import read_manifest
from onnx_llm_passes.ir.proof import prove
from onnx_llm_passes.runtime.samples.samples import scatter_decoder

from .damage import DAMAGES, text_of
from .sound_pairs import BY_NAME, PAIRS, Pair, real_pairs

ALL = [*PAIRS, *real_pairs()]
FOUND: dict[str, DimensionAnalysis] = {}


def canonical(pair: Pair) -> DimensionAnalysis:
    """The symbols of the pair's graph, found once."""
    if pair.name not in FOUND:
        FOUND[pair.name] = analyze_dimensions(pair.build())
    return FOUND[pair.name]


def complaints(pair: Pair, text: str, folder: Path) -> list[str]:
    """What is wrong with a manifest, in the order it is found; nothing where it is sound."""
    file = folder / "specializations.json"
    file.write_text(text, encoding="utf-8")
    try:
        reading = read_manifest(file)
    except OnnxPassesError as error:
        return [str(error)]
    proof = prove(canonical(pair), reading.specializations, tolerated=reading.tolerated)
    return [str(failure) for failure in proof.all_failures]


def test_there_are_many_kinds_of_damage() -> None:
    assert len(DAMAGES) >= 40


@pytest.mark.parametrize("pair", ALL, ids=lambda pair: pair.name)
def test_sound_pairs_are_not_refused(pair: Pair, tmp_path: Path) -> None:
    assert complaints(pair, text_of(pair.manifest()), tmp_path) == []


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("pair", ALL, ids=lambda pair: pair.name)
def test_damage_is_refused_by_name(pair: Pair, kind: str, tmp_path: Path) -> None:
    for text, item in DAMAGES[kind](pair):
        if _harmless(pair, kind, item):
            continue
        found = complaints(pair, text, tmp_path)
        assert found, f"{kind}: {item} was not refused"
        assert any(item in line for line in found), f"{kind}: {item!r} is not named in {found}"
        assert all(len(line) < 3000 for line in found)


def _harmless(pair: Pair, kind: str, item: str) -> bool:
    """Sizes that a graph takes: every row of its output has logits, and a prompt may be of any length it can hold."""
    free = not pair.ctx and not pair.past and item in (pair.seq, pair.batch)
    return kind in ("more tokens than the context", "more tokens than logits in a decode") and (
        free or (kind.startswith("more tokens than logits") and not logits_of_the_last(pair))
    )


def logits_of_the_last(pair: Pair) -> bool:
    """True where the graph gives logits of one row alone, or a wrong length breaks ``past + seq = ctx``."""
    return bool(pair.past) or pair.name.startswith(("scatter", "qeff"))


def _output(model: ir.Model, name: str) -> ir.Value:
    return next(value for value in model.graph.outputs if value.name == name)


def _other_type(model: ir.Model) -> str:
    value = _output(model, "past_key.0_RetainedState")
    value.type = ir.TensorType(ir.DataType.FLOAT16)
    return "past_key.0"


def _other_width(model: ir.Model) -> str:
    value = _output(model, "past_value.1_RetainedState")
    value.shape = ir.Shape(["batch_size", 2, "ctx_len", 4])
    return "past_value.1"


def _other_rank(model: ir.Model) -> str:
    value = _output(model, "past_value.0_RetainedState")
    value.shape = ir.Shape(["batch_size", "ctx_len", 8])
    return "past_value.0"


def _other_length(model: ir.Model) -> str:
    value = _output(model, "past_key.1_RetainedState")
    value.shape = ir.Shape(["batch_size", 2, 16, 16])
    return "past_key.1"


@pytest.mark.parametrize("damage", [_other_type, _other_width, _other_rank, _other_length])
def test_a_damaged_state_is_refused_by_name(damage: Callable[[ir.Model], str]) -> None:
    model = scatter_decoder()
    item = damage(model)
    specs = [_spec("Prefill", batch_size=1, seq_len=8, ctx_len=32)]
    proof = prove(model, specs)
    assert not proof.sound
    assert any(item in str(failure) for failure in proof.all_failures)


def _spec(name: str, role: SpecRole = SpecRole.PREFILL, k: int | None = None, **binding: int) -> Specialization:
    return Specialization(name=name, role=role, k=k, binding=binding)


@pytest.mark.parametrize("k", [0, 3, 5, 8])
def test_a_wrong_k_is_refused(k: int) -> None:
    found = canonical(BY_NAME["append"])
    decode = _spec("Decode", SpecRole.DECODE, k, batch_size=1, sequence_length=5, past_sequence_length=27)
    proof = prove(found, [decode])
    assert [failure.item for failure in proof.all_failures] == ["k"]
    assert f"K = {k}" in str(proof.all_failures[0])


def test_a_k_of_a_prefill_is_refused() -> None:
    prefill = _spec("Prefill", k=4, batch_size=1, sequence_length=5, past_sequence_length=0)
    assert [failure.rule for failure in prove(canonical(BY_NAME["append"]), [prefill]).all_failures] == ["K"]


IO = {
    "unknown name": ({"past_keys.0": "float16"}, "past_keys.0"),
    "unknown precision": ({"past_key.0": "fp16", "past_key.0_RetainedState": "fp16"}, "fp16"),
    "an integer": ({"input_ids": "float16"}, "input_ids"),
    "one side of a state": ({"past_key.0": "mxint8"}, "past_key.0"),
    "two sides of a state": ({"past_key.0": "mxint8", "past_key.0_RetainedState": "float16"}, "past_key.0"),
    "mxint8 that is no cache": ({"logits": "mxint8"}, "logits"),
    "mxint8 beside bfloat16": (
        {"past_key.0": "mxint8", "past_key.0_RetainedState": "mxint8", "logits": "bfloat16"},
        "past_key.0",
    ),
}


@pytest.mark.parametrize("kind", IO)
def test_damaged_custom_io_is_refused_by_name(kind: str) -> None:
    listed, item = IO[kind]
    proof = prove(
        canonical(BY_NAME["scatter"]), [_spec("Prefill", batch_size=1, seq_len=8, ctx_len=32)], custom_io=listed
    )
    assert any(failure.rule == "custom I/O" and item in str(failure) for failure in proof.all_failures)


def test_sound_custom_io_is_not_refused() -> None:
    listed = {"past_key.0": "mxint8", "past_key.0_RetainedState": "mxint8", "logits": "float16"}
    proof = prove(
        canonical(BY_NAME["scatter"]), [_spec("Prefill", batch_size=1, seq_len=8, ctx_len=32)], custom_io=listed
    )
    assert proof.sound


@given(batch=st.integers(1, 64), seq=st.integers(1, 4096), ctx=st.integers(1, 4096))
@settings(max_examples=60, deadline=None)
def test_a_written_cache_holds_what_it_has_rows_for(batch: int, seq: int, ctx: int) -> None:
    spec = _spec("Prefill", batch_size=batch, seq_len=seq, ctx_len=ctx)
    assert prove(canonical(BY_NAME["scatter"]), [spec]).sound == (seq <= ctx)


@given(sizes=st.lists(st.integers(0, 64), min_size=5, max_size=5))
@settings(max_examples=120, deadline=None)
def test_unrelated_symbols_are_bound_together(sizes: list[int]) -> None:
    batch, seq, mask_batch, total, past = sizes
    spec = _spec("Prefill", s10=batch, s70=seq, s43=mask_batch, s53=total, s15=past)
    fits = batch == mask_batch > 0 and seq > 0 and total == past + seq
    assert prove(canonical(BY_NAME["append dynamo"]), [spec]).sound == fits


@given(ctx=st.integers(2, 512), k=st.integers(0, 32), slip=st.integers(-2, 2))
@settings(max_examples=80, deadline=None)
def test_decodes_of_one_set_end_at_one_context(ctx: int, k: int, slip: int) -> None:
    others = [
        _spec(f"D{i}", SpecRole.DECODE, i, batch_size=1, sequence_length=i + 1, past_sequence_length=ctx + 40 - i)
        for i in range(33, 36)
    ]
    past = ctx + 41 - (k + 1) + slip
    mine = _spec("Mine", SpecRole.DECODE, k, batch_size=1, sequence_length=k + 1, past_sequence_length=past)
    proof = prove(canonical(BY_NAME["append"]), [mine, *others])
    assert proof.sound == (slip == 0)


@given(
    data=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["name", "symbols", "specializations", "x"]), inner, max_size=4)
        ),
    )
)
@settings(max_examples=150, deadline=None)
def test_any_json_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: object) -> None:
    folder = tmp_path_factory.mktemp("any", numbered=True)
    assert complaints(BY_NAME["scatter"], json.dumps(data), folder)
