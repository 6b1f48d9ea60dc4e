"""ai.onnx Attention, lowered, beside onnxruntime: its kernel at opsets 23 and 24, the function body at 25."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_llm_passes.runtime.session.session import RunError, SessionError

from .lower_tools import assert_close, both, one_node

OUTPUTS = ["y", "present_key", "present_value", "scores"]


def draw(seed: int) -> tuple[int, dict[str, np.ndarray | None], dict[str, Any], list[str]]:
    """A call with options of every kind: its opset, inputs, attributes and outputs."""
    rng = np.random.default_rng(seed)

    def one_of(*items: Any) -> Any:
        return items[int(rng.integers(len(items)))]

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    opset = one_of(23, 24, 25)
    kv, groups, size, wide = one_of(1, 2), one_of(1, 2, 3), one_of(4, 8), one_of(4, 6)
    heads, batch, new, past = kv * groups, one_of(1, 2, 3), one_of(1, 3, 5), one_of(0, 0, 1, 4)
    outside = opset >= 24 and past == 0 and one_of(False, True)
    keys = new + one_of(0, 2, 4) if outside or (past == 0 and one_of(False, True)) else new
    flat = one_of(False, True)
    shapes = ((heads, new, size), (kv, keys, size), (kv, keys, wide))
    inputs: dict[str, np.ndarray | None] = {
        name: normal(batch, n, h * d) if flat else normal(batch, h, n, d)
        for name, (h, n, d) in zip("QKV", shapes, strict=True)
    }
    total = past + keys
    inputs["attn_mask"] = _mask(rng, opset, batch, heads, new, total)
    inputs["past_key"] = normal(batch, kv, past, size) if past else None
    inputs["past_value"] = normal(batch, kv, past, wide) if past else None
    if opset >= 24:
        inputs["nonpad_kv_seqlen"] = rng.integers(1, keys + 1, batch).astype(np.int64) if outside else None
    attributes: dict[str, Any] = {"is_causal": one_of(0, 1), "qk_matmul_output_mode": one_of(0, 1, 2, 3)}
    if flat:
        attributes |= {"q_num_heads": heads, "kv_num_heads": kv}
    for name, value in (
        ("scale", float(rng.uniform(0.1, 1))),
        ("softcap", one_of(1.0, 10.0)),
        ("softmax_precision", 1),
    ):
        if one_of(False, False, True):
            attributes[name] = value
    if opset >= 25:
        attributes |= {name: one_of(-1, -1, 0, 1, 3) for name in ("left_window_size", "right_window_size")}
    outputs = OUTPUTS if past else ["y", "", "", "scores"]
    return opset, inputs, attributes, outputs if one_of(False, True) else outputs[:3] if past else outputs[:1]


def _mask(rng: np.random.Generator, opset: int, batch: int, heads: int, new: int, total: int) -> np.ndarray | None:
    """None, or a mask of booleans or numbers; onnxruntime's kernel takes whole lines alone, the function any."""
    kind = int(rng.integers(4))
    if kind == 0:
        return None
    lead = [(1, 1), (batch, 1), (batch, heads), (1, heads), ()][int(rng.integers(5))]
    columns = total if opset < 25 or rng.integers(2) else 1
    rows = new if opset < 25 or rng.integers(2) else 1
    shape = (*lead, rows, columns)
    if kind == 1:
        return rng.random(shape) < 0.7
    numbers = rng.standard_normal(shape).astype(np.float32)
    return numbers if kind == 2 else np.where(rng.random(shape) < 0.7, numbers, -np.inf).astype(np.float32)


def compare(seed: int) -> bool:
    """Compares one call; False where onnxruntime itself refuses it."""
    opset, inputs, attributes, outputs = draw(seed)
    model = one_node("Attention", inputs, outputs, attributes, domain="", opset=opset)
    given = {name: array for name, array in inputs.items() if array is not None}
    try:
        kernel, ours = both(model, given)
    except (RunError, SessionError) as error:
        assert error.where == "kernel", error
        return False
    for name in kernel:
        a, b = kernel[name], ours[name]
        hidden = ~np.isfinite(a) | (np.abs(a) > 1e30) if name == "scores" else np.zeros(a.shape, bool)
        assert (b[hidden] < -1e30).all(), name
        assert_close(np.where(hidden, 0, a), np.where(hidden, 0, b), 4e-6, name)
    return True


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_a_lowered_attention_equals_onnxruntime(seed: int) -> None:
    compare(seed)


@pytest.mark.slow
@settings(max_examples=500)
@given(st.integers(0, 2**32 - 1))
def test_a_lowered_attention_equals_onnxruntime_500_times(seed: int) -> None:
    compare(seed)


def test_most_drawn_calls_are_taken_by_onnxruntime() -> None:
    assert sum(compare(seed) for seed in range(60)) > 40
