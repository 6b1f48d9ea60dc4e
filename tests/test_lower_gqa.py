"""GroupQueryAttention, lowered, beside onnxruntime's kernel over its options; every option is drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_llm_passes.ir.rewrite.lower import Layout
from onnx_llm_passes.runtime.session.session import RunError, Session

from .lower_tools import assert_close, both, lowered, one_node

SIZE = 16  # the kernel takes head sizes that are multiples of 16
MODES = ("first", "first padded", "one token", "one token, ragged", "chunk")
CACHES = {"none": None, "int8": ("PER_TENSOR", 8), "int8 by channel": ("PER_CHANNEL", 8), "int4": ("PER_CHANNEL", 4)}
QUANTIZED = 1e-5  # products of whole steps are larger than their sum


@dataclass
class Drawn:
    """One call: its inputs, attributes, and which rows of the result mean anything."""

    rng: np.random.Generator
    inputs: dict[str, np.ndarray | None] = field(default_factory=dict[str, "np.ndarray | None"])
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])
    layout: Layout = Layout.APPEND
    ends: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def one_of(self, *items: Any) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(np.float32)


def draw(seed: int) -> Drawn:
    """A call with options of every kind."""
    d = Drawn(np.random.default_rng(seed))
    kv, groups, mode = d.one_of(1, 2), d.one_of(1, 2, 3), d.one_of(*MODES)
    heads = kv * groups
    batch = 1 if mode == "chunk" else d.one_of(1, 2, 3)
    new = {"one token": 1, "one token, ragged": 1}.get(mode, int(d.rng.integers(2, 8)))
    past = 0 if mode.startswith("first") else int(d.rng.integers(1, 12))
    shared = mode == "one token, ragged" or d.one_of(False, True)
    d.layout = Layout.SCATTER if shared else Layout.APPEND
    d.ends, d.tokens = np.full(batch, past + new), np.full(batch, new)
    if mode == "first padded":
        d.ends = d.tokens = d.rng.integers(1, new + 1, batch)
    if mode == "one token, ragged":
        d.ends = d.rng.integers(1, past + 1, batch) + 1
        d.ends[0] = past + 1
    rows = past + new + int(d.rng.integers(0, 4)) if shared else past
    _options(d, heads, kv)
    cache = d.one_of("none", "none", *CACHES)
    dtype_past = _caches(d, cache, (batch, kv, rows, SIZE))
    packed = d.one_of(False, True)
    width = (heads + 2 * kv if packed else heads) * SIZE
    d.inputs = {
        "query": d.normal(batch, new, width),
        "key": None if packed else d.normal(batch, new, kv * SIZE),
        "value": None if packed else d.normal(batch, new, kv * SIZE),
        **dtype_past,
        "seqlens_k": (d.ends - 1).astype(np.int32),
        "total_sequence_length": np.asarray(past + new, np.int32),
        **_tables(d),
        "position_ids": _positions(d, mode, new),
        "attention_bias": _bias(d, batch, heads, new, past + new),
        "head_sink": None if "smooth_softmax" in d.attributes else d.one_of(None, None, d.normal(heads)),
        **_scales(d, cache, kv),
    }
    if cache == "none" and past == 0 and not shared and d.one_of(False, True):
        d.inputs["past_key"] = d.inputs["past_value"] = None
    if cache == "none" and d.inputs["past_key"] is not None and d.one_of(False, False, False, True):
        _pad_chunk(d, batch, new, past)
    return d


def _options(d: Drawn, heads: int, kv: int) -> None:
    d.attributes = {"num_heads": heads, "kv_num_heads": kv}
    for name, value in (
        ("scale", float(d.rng.uniform(0.1, 1))),
        ("softcap", d.one_of(1.0, 5.0, 30.0)),
        ("smooth_softmax", 1),
        ("local_window_size", int(d.rng.integers(1, 8))),
    ):
        if d.one_of(False, True):
            d.attributes[name] = value
    if "local_window_size" not in d.attributes and d.one_of(False, False, True):
        d.attributes["causal"] = 0
    if d.one_of(False, True):
        d.attributes |= {"do_rotary": 1, "rotary_interleaved": d.one_of(0, 1)}


def _caches(d: Drawn, cache: str, shape: tuple[int, int, int, int]) -> dict[str, np.ndarray | None]:
    names = ("past_key", "past_value")
    kind = CACHES[cache]
    if kind is None:
        return {name: d.normal(*shape) for name in names}
    mode, bits = kind
    d.attributes |= {"k_quant_type": mode, "v_quant_type": mode, "kv_cache_bit_width": bits}
    if bits == 8:
        return {name: d.rng.integers(-127, 128, shape).astype(np.int8) for name in names}
    packed = (*shape[:3], shape[3] // 2)
    return {name: d.rng.integers(0, 256, packed).astype(np.uint8) for name in names}


def _scales(d: Drawn, cache: str, kv: int) -> dict[str, np.ndarray | None]:
    kind = CACHES[cache]
    if kind is None:
        return {}
    shape = (1,) if kind[0] == "PER_TENSOR" else (1, kv, 1, SIZE)
    step = 0.05 if kind[1] == 8 else 0.4
    return {name: (step * d.rng.uniform(0.5, 2, shape)).astype(np.float32) for name in ("k_scale", "v_scale")}


def _tables(d: Drawn) -> dict[str, np.ndarray | None]:
    rotary = "do_rotary" in d.attributes
    return {name: d.normal(32, SIZE // 2) if rotary else None for name in ("cos_cache", "sin_cache")}


def _positions(d: Drawn, mode: str, new: int) -> np.ndarray | None:
    if "do_rotary" not in d.attributes or mode == "first padded" or d.one_of(False, True):
        return None
    return ((d.ends - new)[:, None] + np.arange(new)).astype(np.int64)


def _bias(d: Drawn, batch: int, heads: int, new: int, total: int) -> np.ndarray | None:
    return d.normal(d.one_of(1, batch), d.one_of(1, heads), new, total) if d.one_of(False, True) else None


def _pad_chunk(d: Drawn, batch: int, new: int, past: int) -> None:
    """query_seqlens: new rows padded on the right, in a buffer with room for them."""
    d.layout, d.tokens = Layout.SCATTER, d.rng.integers(1, new + 1, batch)
    d.ends = past + d.tokens
    kv = d.attributes["kv_num_heads"]
    for name in ("past_key", "past_value"):
        d.inputs[name] = d.normal(batch, kv, past + new + 2, SIZE)
    d.attributes["causal"] = 1
    d.inputs |= {"seqlens_k": (d.ends - 1).astype(np.int32), "position_ids": None}
    rest = dict.fromkeys(("k_scale", "v_scale", "q_norm_weight", "k_norm_weight"))
    d.inputs |= {**rest, "query_seqlens": d.tokens.astype(np.int32)}


def compare(seed: int) -> bool:
    """Compares one call; False where the kernel itself refuses it."""
    d = draw(seed)
    model = one_node("GroupQueryAttention", d.inputs, ["y", "present_key", "present_value"], d.attributes)
    given = {name: array for name, array in d.inputs.items() if array is not None}
    try:
        kernel, ours = both(model, given, d.layout)
    except RunError as error:
        assert error.where == "kernel", error
        return False
    quantized = "k_quant_type" in d.attributes
    for row, (tokens, end) in enumerate(zip(d.tokens, d.ends, strict=True)):
        assert_close(kernel["y"][row, :tokens], ours["y"][row, :tokens], QUANTIZED if quantized else 2e-6, "y")
        for name in ("present_key", "present_value"):
            a, b = kernel[name][row, :, :end], ours[name][row, :, :end]
            if quantized:  # a step's half may be rounded to either side
                assert np.mean(a != b) < 0.01, name
            else:
                assert_close(a, b, what=name)
    return True


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_lowered_group_query_attention_equals_the_kernel(seed: int) -> None:
    compare(seed)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_lowered_group_query_attention_equals_the_kernel_500_times(seed: int) -> None:
    compare(seed)


def test_most_drawn_calls_are_taken_by_the_kernel() -> None:
    assert sum(compare(seed) for seed in range(40)) > 30


def test_query_and_key_norms_are_an_rms_norm_over_each_head() -> None:
    """onnxruntime 1.32's CPU kernel refuses q_norm_weight: the same call with normed inputs stands in for it."""
    d = Drawn(np.random.default_rng(0))
    query, key, value = d.normal(2, 3, 2 * SIZE), d.normal(2, 3, SIZE), d.normal(2, 3, SIZE)
    norms = {"q_norm_weight": d.normal(SIZE), "k_norm_weight": d.normal(SIZE)}
    lengths = {"seqlens_k": np.asarray([2, 2], np.int32), "total_sequence_length": np.asarray(3, np.int32)}
    empty = dict.fromkeys(("past_key", "past_value"))
    holes = dict.fromkeys(("cos", "sin", "position_ids", "bias", "sink", "k_scale", "v_scale"))
    attributes = {"num_heads": 2, "kv_num_heads": 1, "q_norm_epsilon": 1e-5, "qk_norm_epsilon": 1e-3}
    inputs = {"query": query, "key": key, "value": value, **empty, **lengths, **holes, **norms}
    fused = one_node("GroupQueryAttention", inputs, ["y", "present_key", "present_value"], attributes)
    for output, shape in zip(fused.graph.outputs, ((2, 3, 2 * SIZE), (2, 1, 3, SIZE), (2, 1, 3, SIZE)), strict=True):
        output.type, output.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
    given = {name: array for name, array in inputs.items() if array is not None}
    ours = Session(lowered(fused), "lowered").run(given)

    def normed(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
        wide = x.reshape(2, 3, -1, SIZE)
        return (wide / np.sqrt((wide**2).mean(-1, keepdims=True) + epsilon) * weight).reshape(x.shape)

    plain = {**inputs, **dict.fromkeys(norms)}
    plain["query"] = normed(query, norms["q_norm_weight"], 1e-5)
    plain["key"] = normed(key, norms["k_norm_weight"], 1e-3)
    rest = {"num_heads": 2, "kv_num_heads": 1}
    kernel = Session(one_node("GroupQueryAttention", plain, ["y"], rest), "kernel")
    expected = kernel.run({name: array for name, array in plain.items() if array is not None})
    assert_close(expected["y"], ours["y"], what="y")
