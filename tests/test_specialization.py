"""Specializations: their form, names, families, and the pass that binds them under a graph's own symbols."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from onnx_llm_passes.ir.core.errors import OnnxPassesError
from onnx_llm_passes.ir.core.specialization import (
    MAX_SIZE,
    Manifest,
    ManifestInvalid,
    Specialization,
    SpecRole,
    read_size,
    read_specialization,
)
from onnx_llm_passes.ir.specialize.families import (
    FAMILIES,
    CausalSizes,
    EqualLengths,
    FamilyError,
    Phases,
    automatic,
    causal,
    encoder,
    latents,
    multimodal,
    named,
    settled,
    speech,
)
from onnx_llm_passes.ir.specialize.naming import infer_name, to_flat, to_named, unique_names

NO_SIZES: list[Any] = [True, False, 1.0, "01", "1.0", " 1", "1 ", "+1", "", "-1", -1, None, math.nan, [], {}, "٣",
                       MAX_SIZE + 1, "9" * 5000]  # fmt: skip


@pytest.mark.parametrize("given_size", NO_SIZES, ids=lambda s: repr(s)[:20])
def test_what_is_no_size_is_refused(given_size: Any) -> None:
    with pytest.raises(ManifestInvalid, match="is no size"):
        read_size(given_size, where="here")


@given(st.integers(min_value=0, max_value=MAX_SIZE))
def test_sizes_read_from_integers_and_their_decimals(size: int) -> None:
    assert read_size(size, where="") == size == read_size(str(size), where="")


def spec(name: str, role: SpecRole = SpecRole.DECODE, k: int | None = None, **binding: int) -> Specialization:
    return Specialization(name=name, role=role, binding=binding, k=k)


def test_alike_specializations_are_one_and_the_whole_vector_decides() -> None:
    same, other_k = spec("b", seq_len=4), spec("c", k=3, seq_len=4)
    manifest = Manifest.of([spec("a", seq_len=4), same, other_k])
    assert [item.name for item in manifest.specializations] == ["a", "c"]


def test_the_order_is_role_then_k_and_stable() -> None:
    items = [
        spec("d4", k=4, s=5),
        spec("d0", k=0, s=1),
        spec("p", SpecRole.PREFILL, s=9),
        spec("d", s=2),
        spec("e", s=3),
    ]
    assert [item.name for item in Manifest.of(items).specializations] == ["p", "d", "e", "d0", "d4"]


def test_a_name_that_stands_twice_is_refused() -> None:
    with pytest.raises(ManifestInvalid, match="'a'"):
        Manifest.of([spec("a", s=1), spec("a", s=2)])


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"name": "a", "binding": {"s": True}}, "binding.s"),
        ({"name": "a", "binding": {"s": 1.5}}, "binding.s"),
        ({"name": "a", "binding": {"s": -1}}, "binding.s"),
        ({"name": "", "binding": {}}, "name"),
        ({"name": "a\n", "binding": {}}, "name"),
        ({"name": "a", "binding": {"s": 1}, "k": -1}, "k"),
        ({"name": "a", "binding": {"s": 1}, "latency": math.nan}, "latency"),
        ({"name": "a", "binding": {"s": 1}, "rôle": 1}, "rôle"),
        ({"name": "a", "symbols": {"s": "01"}}, "'s'"),
        ({"name": "a", "symbols": []}, "symbols"),
        (["a"], "entry 0"),
    ],
    ids=str,
)
def test_a_wrong_entry_is_refused_by_name(entry: Any, said: str) -> None:
    with pytest.raises(ManifestInvalid, match=said):
        read_specialization(entry)


def test_a_specialization_survives_its_json() -> None:
    item = Specialization(name="Decode", role=SpecRole.DECODE, binding={"s": 5}, k=4, logits_rows=5, latency=0.5)
    assert read_specialization(item.model_dump(mode="json")) == item
    with pytest.raises(ValidationError):
        Specialization(name="x", binding={"s": "5"})  # pyright: ignore[reportArgumentType]


# names


def test_the_rules_of_names_in_their_order() -> None:
    everything = {"_graph_name": "Tag", "model_type": 2, "encoder_ctx_len": 5, "sequence_length": 3}
    assert infer_name(everything, 7, "m") == "Tag"
    del everything["_graph_name"]
    assert infer_name(everything, 7, "m") == "m_model_type_2"
    assert infer_name(everything, 7) == "Encoder"
    assert infer_name({"sequence_length": 3}, 7) == "Embedding"
    assert infer_name({"sequence_length": 3, "seq_len": "1"}, 7) == "Decode"
    assert infer_name({"encoder_ctx_len": 3, "seq_len": 2}, 7) == "Prefill"
    assert infer_name({"x": 3}, 7) == "Graph_7"


@pytest.mark.parametrize("seq_len", [None, 1.0, True, "01", 0])
def test_a_length_that_is_no_size_names_nothing(seq_len: Any) -> None:
    """The other tool calls each of these "Prefill" and writes "None", "1.0", "True" as the symbol."""
    with pytest.raises(ManifestInvalid):
        infer_name({"seq_len": seq_len}, 0)


def test_a_suffix_never_takes_a_name_that_is_there() -> None:
    """The other tool answers X_0, X_0, X_1."""
    assert unique_names(["X_0", "X", "X"]) == ["X_0", "X_1", "X_2"]
    assert unique_names(["X", "X", "X_1"]) == ["X_0", "X_2", "X_1"]
    assert unique_names(["X"], ["X", "X_0"]) == ["X_1"]


@given(st.lists(st.sampled_from(["X", "X_0", "X_1", "X_0_0", "Y"]), max_size=8))
def test_names_are_unique_and_single_ones_stay(names: list[str]) -> None:
    found = unique_names(names)
    assert len(set(found)) == len(names)
    assert all(new == old for new, old in zip(found, names, strict=True) if names.count(old) == 1)


def test_half_named_entries_are_refused_and_named_ones_validated() -> None:
    """The other tool writes a dictionary as text for the first, and lets the second's integers through."""
    with pytest.raises(ManifestInvalid, match="half flat and half named"):
        to_named([{"name": "A", "symbols": {"x": "1"}, "extra": 1}])
    assert to_named([{"name": "A", "symbols": {"x": 1}}]) == [{"name": "A", "symbols": {"x": "1"}}]
    with pytest.raises(ManifestInvalid, match="'x'"):
        to_named([{"name": "A", "symbols": {"x": True}}])


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 99), min_size=1), max_size=5))
def test_flat_and_named_hold_the_same_symbols(entries: list[dict[str, int]]) -> None:
    flat = to_flat(entries)
    assert [{k: int(v) for k, v in entry.items()} for entry in flat] == entries
    assert [entry["symbols"] for entry in to_named(flat)] == flat


# families


def symbols(entries: list[Any]) -> list[dict[str, int]]:
    return [entry.symbols for entry in entries]


def test_a_decode_as_long_as_the_prefill_keeps_its_k() -> None:
    sizes = CausalSizes(prefill=4, ctx=16, k=(3,))
    kept = named(causal(sizes))
    assert [(item.name, item.k, item.binding["num_logits_to_keep"]) for item in kept] == [
        ("Prefill", None, 1),
        ("Decode", 3, 4),
    ]
    shared = causal(CausalSizes(prefill=4, ctx=16, k=(3,), equal_lengths=EqualLengths.SHARE))
    assert [entry.role for entry in shared] == [SpecRole.PREFILL]


def test_prefix_caching_has_more_rows_than_sequences() -> None:
    found = symbols(causal(CausalSizes(prefill=8, ctx=16, full_batch=2, cache_batch=4)))
    assert found[0] == {
        "ctx_len": 16, "full_batch_size": 4, "batch_size": 1, "seq_len": 8, "full_batch_exec_size": 1
    }  # fmt: skip
    assert found[1] == {"ctx_len": 16, "full_batch_size": 4, "batch_size": 2, "seq_len": 1}


@pytest.mark.parametrize(
    "sizes",
    [
        CausalSizes(batch=0),
        CausalSizes(prefill=0),
        CausalSizes(prefill=256, ctx=128),
        CausalSizes(k=(-1,)),
        CausalSizes(k=()),
        CausalSizes(k=(32,), prefill=32),
        CausalSizes(k=(True,)),
        CausalSizes(full_batch=0),
        CausalSizes(full_batch=4, cache_batch=2),
        CausalSizes(k=(1,), lengths=settled((), (), 8192, 32), ctx=8192),
    ],
    ids=lambda sizes: ", ".join(f"{k}={v}" for k, v in vars(sizes).items())[:60],
)
def test_sizes_that_cannot_be_are_refused(sizes: CausalSizes) -> None:
    with pytest.raises(FamilyError):
        causal(sizes)


def test_phases_choose() -> None:
    assert [e.role for e in causal(CausalSizes(phases=Phases.PREFILL))] == [SpecRole.PREFILL]
    assert [e.role for e in causal(CausalSizes(phases=Phases.DECODE))] == [SpecRole.DECODE]
    one = causal(CausalSizes(prefill=1, phases=Phases.DECODE))
    assert [(e.tag, e.symbols["seq_len"]) for e in one] == [("Decode", 1)]


@pytest.mark.parametrize(
    ("ctx", "prompt", "prefill", "decode", "whole"),
    [
        (3000, 32, (3072,), (3072,), 3072),
        (8192, 32, (4000, 8192), (4096, 8192), 8192),
        (64000, 32, (8000, 16000, 32000, 64512), (8192, 16384, 32768, 64512), 64512),
        (40000, 1, (4096, 8192, 16384, 32768, 40960), (4096, 8192, 16384, 32768, 40960), 40960),
        (1 << 20, 32, (16000, 32000, 64000, 128000, 1 << 20), (16384, 32768, 65536, 131072, 1 << 20), 1 << 20),
    ],
)
def test_context_lengths_double_up_to_the_context(
    ctx: int, prompt: int, prefill: tuple[int, ...], decode: tuple[int, ...], whole: int
) -> None:
    found = automatic(ctx, prompt)
    assert (found.prefill, found.decode, found.ctx) == (prefill, decode, whole)


@given(
    st.lists(st.integers(1, 9000), max_size=4),
    st.lists(st.integers(1, 9000), max_size=4),
    st.sampled_from([2048, 4096, 8192]),
)
def test_prefill_and_decode_never_share_a_context_length(prefill: list[int], decode: list[int], ctx: int) -> None:
    found = settled(prefill, decode, ctx, 32)
    assert not set(found.prefill) & set(found.decode)
    assert max(found.decode) == found.ctx and max(found.prefill) <= found.ctx


def test_encoders_and_speech() -> None:
    found = named(encoder("ctc", (100, 200, 100)))
    assert [(item.name, item.binding["seq_len"]) for item in found] == [("CTC_0", 100), ("CTC_1", 200)]
    encode, decode = speech(100, 400, 2)
    assert (encode.symbols["feature_len"], decode.symbols["feature_len"]) == (800, 1)


def test_an_odd_side_of_latents_loses_its_last_column() -> None:
    """The other tool multiplies before it halves, and counts rows that no patch covers."""
    assert latents(480, 840, 81).rows == 30 * 52 * 21


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_says_what_it_needs(name: str) -> None:
    prefill, ctx = FAMILIES[name].lengths
    lists = multimodal(name, {"kv_offload": True, "ctx_len": max(ctx, 8192), "prefill_seq_len": prefill})
    assert [entry.role for entry in lists["lang"]] == [SpecRole.PREFILL, SpecRole.DECODE]
    assert all(set(FAMILIES[name].language) <= entry.symbols.keys() for entry in lists["lang"])
    assert ("vision" in lists) == bool(FAMILIES[name].vision)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"])
def test_language_is_compiled_for_the_largest_picture_whatever_its_place(name: str) -> None:
    """The other tool takes the last one's size in one of these families."""
    options = {"kv_offload": True, "ctx_len": 8192, "height": [896, 354], "width": [896, 536]}
    lists = multimodal(name, options)
    sizes = [entry.symbols["vision_size"] for entry in lists["vision"]]
    assert sizes[0] > sizes[1]
    assert {entry.symbols["vision_size"] for entry in lists["lang"]} == {sizes[0]}


@pytest.mark.parametrize("name", sorted(n for n in FAMILIES if FAMILIES[n].vision))
def test_context_lengths_tell_every_language_entry_apart(name: str) -> None:
    """The other tool leaves them out in one family, whose decodes are then alike."""
    options: dict[str, Any] = {"kv_offload": True, "ctx_len": 8192, "comp_ctx_lengths_prefill": [2048]}
    lists = multimodal(name, {**options, "comp_ctx_lengths_decode": [3072, 4096]})
    assert len({tuple(sorted(entry.symbols.items())) for entry in lists["lang"]}) == 3


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("llava_next", {}, "packaged in two"),
        ("mllama", {"continuous_batching": True, "full_batch_size": 2}, "cannot be batched"),
        ("kimi_k25", {"num_patches": 4}, "num_patches"),
        ("qwen3_vl", {"height": [1, 2], "width": [3]}, "do not pair"),
        ("qwen3_vl", {"height": 100000, "width": 100}, "too long a picture"),
        ("qwen3_vl", {"ctx_len": 128, "prefill_seq_len": 32}, "does not fit the context"),
        ("qwen3_vl", {"full_batch_size": 4}, "needs continuous batching"),
        ("qwen3_vl", {"continuous_batching": True, "full_batch_size": 4, "kv_cache_batch_size": 2}, "too few rows"),
        ("qwen3_vl", {"hieght": 4}, "did you mean"),
        ("qwen3_vl", {"kv_offload": "yes"}, "no boolean"),
        ("internvl", {"img_size": 336}, "fixed"),
        ("gemma9", {}, "unknown family"),
    ],
    ids=lambda x: str(x)[:40],
)
def test_families_refuse_what_they_cannot_be(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(OnnxPassesError, match=f"(?i){said}"):
        multimodal(name, {"kv_offload": name != "llava_next", **options})


def test_a_shared_length_moves_to_the_multiple_below() -> None:
    assert settled((), (9088,), 3783, 32).prefill == (3776,)
    assert settled((512, 1024), (), 4096, 128).prefill == (1024, 4064)


def test_a_chunked_prefill_needs_no_lengths_of_decodes() -> None:
    found = settled((2048,), (), 4096, 128, chunked=True)
    assert (found.prefill, found.decode) == ((2048, 4096), ())
    entries = causal(CausalSizes(prefill=128, ctx=4096, lengths=found))
    assert [entry.symbols.get("comp_ctx_lengths") for entry in entries] == [2048, 4096, None]
    with pytest.raises(FamilyError, match="comp_ctx_lengths_decode"):
        settled((2048,), (), 4096, 1, chunked=True)


def test_a_prefill_alone_is_batched_over_the_caches_rows() -> None:
    sizes = CausalSizes(prefill=128, ctx=4096, cache_batch=8, continuous=True, phases=Phases.PREFILL)
    (entry,) = causal(sizes)
    assert entry.symbols == {"batch_size": 1, "seq_len": 128, "ctx_len": 4096, "full_batch_size": 8}
    for other in (replace(sizes, phases=Phases.BOTH), replace(sizes, prefill=1), replace(sizes, cache_batch=None)):
        with pytest.raises(FamilyError, match="full_batch_size"):
            causal(other)


def test_a_context_beyond_the_models_positions_is_refused() -> None:
    with pytest.raises(FamilyError, match="65536"):
        multimodal("llama4", {"ctx_len": 65537})
    assert multimodal("llama4", {"ctx_len": 65536})["lang"][0].symbols["chunk_ctx_len"] == 8192
