"""Every other operator of the table, lowered, beside onnxruntime's kernel or the operator's function body."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_llm_passes.runtime.session.session import KernelMissing, RunError, SessionError

from .lower_tools import MS, assert_close, both, one_node

Inputs = dict[str, "np.ndarray | None"]


@dataclass
class Call:
    """One node: operator, inputs, outputs, attributes; what is constant; how close it must come."""

    op_type: str
    inputs: Inputs
    outputs: list[str]
    attributes: dict[str, Any]
    domain: str = MS
    opset: int = 22
    constants: tuple[str, ...] = ()
    tolerance: float = 2e-6


class Draw:
    """Numbers and choices of one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def one_of(self, *items: Any) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(np.float32)

    def maybe(self, *shape: int) -> np.ndarray | None:
        return self.normal(*shape) if self.rng.integers(2) else None


def skip_norm(d: Draw) -> Call:
    simplified = d.one_of(False, True)
    x, skip = d.normal(2, 3, 8), d.normal(2, 3, 8)
    name = "SkipSimplifiedLayerNormalization" if simplified else "SkipLayerNormalization"
    inputs: Inputs = {"x": x, "skip": skip, "gamma": d.normal(8)}
    inputs |= {} if simplified else {"beta": d.maybe(8)}
    return Call(name, inputs | {"bias": d.maybe(8)}, ["y", "", "", "sum"], {"epsilon": d.one_of(1e-5, 1e-2)})


def simplified_norm(d: Draw) -> Call:
    return Call("SimplifiedLayerNormalization", {"x": d.normal(2, 3, 8), "scale": d.normal(8)}, ["y"],
                {"epsilon": 1e-3, "axis": -1, "stash_type": 1}, domain="", opset=d.one_of(17, 22))  # fmt: skip


def rms_normalization(d: Draw) -> Call:
    return Call("RMSNormalization", {"x": d.normal(2, 3, 8), "scale": d.normal(8)}, ["y"], {"epsilon": 1e-3},
                domain="", opset=23)  # fmt: skip


def activation(d: Draw) -> Call:
    x, bias = d.normal(2, 3, 8), d.normal(8)
    name = d.one_of("BiasGelu", "FastGelu", "Gelu", "QuickGelu", "ai.onnx Gelu", "Swish", "SwiGLU")
    if name == "ai.onnx Gelu":
        return Call("Gelu", {"x": x}, ["y"], {"approximate": d.one_of("none", "tanh")}, domain="")
    if name in ("Swish", "QuickGelu"):
        attributes = {"alpha": 0.7} if d.one_of(False, True) else {}
        return Call(name, {"x": x}, ["y"], attributes, domain="" if name == "Swish" else MS,
                    opset=24 if name == "Swish" else 22)  # fmt: skip
    if name == "SwiGLU":
        return Call(name, {"a": x, "b": d.normal(2, 3, 8)}, ["y"], {"alpha": 1.3}, domain="", opset=28)
    inputs: Inputs = {"x": x} if name == "Gelu" else {"x": x, "bias": bias}
    return Call(name, inputs, ["y"], {})


def fused_matmul(d: Draw) -> Call:
    ta, tb = d.one_of(0, 1), d.one_of(0, 1)
    a = d.normal(2, 5, 3) if ta else d.normal(2, 3, 5)
    b = d.normal(2, 4, 5) if tb else d.normal(2, 5, 4)
    return Call("FusedMatMul", {"a": a, "b": b}, ["y"], {"transA": ta, "transB": tb, "alpha": d.one_of(1.0, 0.3)})


def rotary(d: Draw) -> Call:
    heads, size, flat = d.one_of(1, 3), d.one_of(8, 16), d.one_of(False, True)
    width = size if d.one_of(True, False) else size // 2
    x = d.normal(2, 4, heads * size) if flat else d.normal(2, heads, 4, size)
    offset = d.one_of(False, True)
    positions = np.asarray([3]) if offset else d.rng.integers(0, 9, (2, 4))
    attributes: dict[str, Any] = {"interleaved": d.one_of(0, 1)}
    if width < size:
        attributes |= {"rotary_embedding_dim": width, "num_heads": heads}
    inputs: Inputs = {"x": x, "positions": positions.astype(np.int64)}
    return Call(
        "RotaryEmbedding", inputs | {"cos": d.normal(9, width // 2), "sin": d.normal(9, width // 2)}, ["y"], attributes
    )


def onnx_rotary(d: Draw) -> Call:
    heads, size, flat = d.one_of(1, 3), 8, d.one_of(False, True)
    width = size if d.one_of(True, False) else 4
    x = d.normal(2, 4, heads * size) if flat else d.normal(2, heads, 4, size)
    attributes: dict[str, Any] = {"interleaved": d.one_of(0, 1)}
    attributes |= {"num_heads": heads} if flat else {}
    attributes |= {"rotary_embedding_dim": width} if width < size else {}
    looked_up = d.one_of(False, True)
    tables = [d.normal(9, width // 2) if looked_up else d.normal(2, 4, width // 2) for _ in range(2)]
    inputs: Inputs = {"x": x, "cos": tables[0], "sin": tables[1]}
    inputs |= {"positions": d.rng.integers(0, 9, (2, 4)).astype(np.int64)} if looked_up else {}
    return Call("RotaryEmbedding", inputs, ["y"], attributes, domain="", opset=23)


def tensor_scatter(d: Draw) -> Call:
    batch, rows, new = 2, 7, 3
    rank, axis = d.one_of((4, -2), (4, 2), (3, 1), (4, 1), (4, 3))
    shape = [batch, 2, 3, 4][:rank]
    cache, update = list(shape), list(shape)
    cache[axis], update[axis] = rows, new
    mode = d.one_of("linear", "circular")
    start = d.rng.integers(0, rows - new + 1 if mode == "linear" else rows, batch).astype(np.int64)
    indices = start if d.one_of(True, True, False) else None
    inputs: Inputs = {"cache": d.normal(*cache), "update": d.normal(*update), "start": indices}
    return Call("TensorScatter", inputs, ["y"], {"axis": axis, "mode": mode}, domain="", opset=24, tolerance=0.0)


def causal_conv(d: Draw) -> Call:
    channels, taps, onnx = 6, d.one_of(2, 3, 4), d.one_of(False, True)
    dilation = 1 if onnx else d.one_of(1, 2)
    inputs: Inputs = {
        "x": d.normal(2, channels, d.one_of(1, 5)),
        "w": d.normal(channels, 1, taps),
        "b": d.maybe(channels),
        "past": d.maybe(2, channels, (taps - 1) * dilation),
    }
    attributes: dict[str, Any] = {"activation": d.one_of("none", "silu", "swish")}
    attributes |= {"dilation": dilation} if dilation > 1 else {}
    return Call(
        "CausalConvWithState", inputs, ["y", "present"], attributes, domain="" if onnx else MS, opset=27 if onnx else 22
    )


def linear_attention(d: Draw) -> Call:
    kv, groups, size, wide, onnx = d.one_of(1, 2), d.one_of(1, 2), 4, d.one_of(4, 6), d.one_of(False, True)
    rule, tokens, heads = d.one_of("linear", "gated", "delta", "gated_delta"), d.one_of(1, 5), kv * groups
    key = d.normal(2, tokens, kv * size) * 0.3
    inputs: Inputs = {
        "q": d.normal(2, tokens, heads * size),
        "k": key,
        "v": d.normal(2, tokens, kv * wide),
        "past": d.maybe(2, kv, size, wide),
        "decay": -np.abs(d.normal(2, tokens, d.one_of(kv, kv * size))) if "gated" in rule else None,
        "beta": np.abs(d.normal(2, tokens, d.one_of(kv, 1))) * 0.5 if "delta" in rule else None,
    }
    attributes: dict[str, Any] = {"update_rule": rule, "q_num_heads": heads, "kv_num_heads": kv}
    attributes |= {"scale": 0.3} if d.one_of(False, True) else {}
    return Call("LinearAttention", inputs, ["y", "present"], attributes, domain="" if onnx else MS,
                opset=27 if onnx else 22, tolerance=5e-6)  # fmt: skip


def matmul_nbits(d: Draw) -> Call:
    bits, block, width, rows = d.one_of(2, 4, 4, 8), d.one_of(16, 32), d.one_of(32, 48, 64, 96), 8
    count = -(-width // block)
    kind = d.one_of("none", "packed", "float") if bits != 8 else d.one_of("none", "packed")
    zero = {
        "none": None,
        "packed": d.rng.integers(0, 256, (rows, -(-count * bits // 8))).astype(np.uint8),
        "float": d.rng.uniform(0, 2**bits, (rows, count)).astype(np.float32),
    }[kind]
    inputs: Inputs = {
        "a": d.normal(2, 3, width),
        "b": d.rng.integers(0, 256, (rows, count, block * bits // 8)).astype(np.uint8),
        "scales": d.normal(*d.one_of((rows, count), (rows * count,))),
        "zero": zero,
        "g_idx": None,
        "bias": d.maybe(rows),
    }
    attributes = {"K": width, "N": rows, "bits": bits, "block_size": block}
    constants = tuple(name for name in ("b", "scales", "zero", "bias") if inputs[name] is not None)
    return Call("MatMulNBits", inputs, ["y"], attributes, opset=d.one_of(17, 21, 22), constants=constants)


def gather_block_quantized(d: Draw) -> Call:
    bits, block, rows, width = d.one_of(4, 8, 2), d.one_of(16, 32), 9, 64
    count = width // block
    zero = d.rng.integers(0, 256, (rows, max(count * bits // 8, 1))).astype(np.uint8) if d.one_of(False, True) else None
    inputs: Inputs = {
        "data": d.rng.integers(0, 256, (rows, width * bits // 8)).astype(np.uint8),
        "ids": d.rng.integers(0, rows, d.one_of((2, 3), (4,))).astype(np.int64),
        "scales": d.normal(rows, count),
        "zero": zero,
    }
    attributes = {"bits": bits, "block_size": block, "gather_axis": 0, "quantize_axis": 1}
    constants = tuple(name for name in ("data", "scales", "zero") if inputs[name] is not None)
    return Call("GatherBlockQuantized", inputs, ["y"], attributes, constants=constants)


def multi_head_attention(d: Draw) -> Call:
    heads, size, batch, new, past = d.one_of(1, 3), 8, d.one_of(1, 2), d.one_of(1, 4), d.one_of(0, 0, 3)
    form = d.one_of("plain", "plain", "packed qkv", "packed kv", "cross cache")
    keys = new if past or form == "packed qkv" else d.one_of(new, new + 2)
    past = past if form == "plain" and keys == new else 0
    total, hidden = past + keys, heads * size
    inputs: Inputs = {"q": d.normal(batch, new, hidden), "k": None, "v": None, "bias": None}
    if form == "packed qkv":
        inputs["q"] = d.normal(batch, new, heads, 3, size)
    elif form == "packed kv":
        inputs["k"] = d.normal(batch, keys, heads, 2, size)
    elif form == "cross cache":
        inputs |= {name: d.normal(batch, heads, keys, size) for name in "kv"}
    else:
        inputs |= {name: d.normal(batch, keys, hidden) for name in "kv"} | {"bias": d.maybe(3 * hidden)}
    inputs["mask"] = d.one_of(
        None,
        None,
        (d.rng.random((batch, total)) < 0.8).astype(np.int32),
        d.rng.integers(1, total + 1, batch).astype(np.int32),
        (d.rng.random((batch, new, total)) < 0.8).astype(np.int32),
    )
    inputs["attention_bias"] = d.one_of(None, d.normal(d.one_of(1, batch), d.one_of(1, heads), new, total))
    if past:
        inputs |= {name: d.normal(batch, heads, past, size) for name in ("past_key", "past_value")}
    attributes: dict[str, Any] = {"num_heads": heads, "unidirectional": d.one_of(0, 1) if keys == new else 0}
    attributes |= {"scale": 0.3} if d.one_of(False, True) else {}
    attributes |= {"mask_filter_value": -100.0} if d.one_of(False, True) else {}
    outputs = ["y", "present_key", "present_value"] if past or (form == "plain" and d.one_of(False, True)) else ["y"]
    return Call("MultiHeadAttention", inputs, outputs, attributes)


def attention(d: Draw) -> Call:
    heads, size, batch, new, past = d.one_of(1, 3), 8, d.one_of(1, 2), d.one_of(1, 4), d.one_of(0, 0, 3)
    hidden, total = heads * size, past + new
    wide = hidden if past else d.one_of(hidden, heads * 4)
    mask = d.one_of(
        None,
        (d.rng.random((batch, total)) < 0.8).astype(np.int32),
        (d.rng.random((batch, new, total)) < 0.8).astype(np.int32),
        d.rng.integers(1, total + 1, batch).astype(np.int32),
        np.concatenate([np.full(batch, total), d.rng.integers(0, total, batch)]).astype(np.int32),
    )
    inputs: Inputs = {
        "x": d.normal(batch, new, 10),
        "w": d.normal(10, 2 * hidden + wide) * 0.3,
        "bias": d.normal(2 * hidden + wide),
        "mask": mask,
        "past": d.normal(2, batch, heads, past, size) if past else None,
        "attention_bias": d.one_of(None, d.normal(1, heads, new, total)),
    }
    attributes: dict[str, Any] = {"num_heads": heads, "unidirectional": d.one_of(0, 1)}
    attributes |= {"qkv_hidden_sizes": [hidden, hidden, wide]} if wide != hidden or d.one_of(False, True) else {}
    return Call("Attention", inputs, ["y", "present"] if past else ["y"], attributes)


def _mixture(d: Draw) -> tuple[int, int, int, dict[str, Any], int]:
    experts, hidden, inner = 4, 32, 32
    kind, fusion = d.one_of("relu", "gelu", "silu", "swiglu", "identity"), d.one_of(1, 2)
    attributes: dict[str, Any] = {"k": d.one_of(1, 2), "activation_type": kind}
    attributes["normalize_routing_weights"] = d.one_of(0, 1)
    if kind == "swiglu":
        attributes |= {"swiglu_fusion": fusion, "activation_alpha": 1.7, "activation_beta": d.one_of(0.0, 1.0)}
        attributes |= {"swiglu_limit": 1.5} if d.one_of(False, True) else {}
    return experts, hidden, inner, attributes, 2 if kind == "swiglu" else 1


def moe(d: Draw) -> Call:
    experts, hidden, inner, attributes, wide = _mixture(d)
    inputs: Inputs = {
        "x": d.normal(*d.one_of((5, hidden), (2, 3, hidden))),
        "router": None,
        "fc1": d.normal(experts, wide * inner, hidden) * 0.2,
        "b1": d.maybe(experts, wide * inner),
        "fc2": d.normal(experts, hidden, inner) * 0.2,
        "b2": d.maybe(experts, hidden),
    }
    x = inputs["x"]
    assert x is not None
    inputs["router"] = d.normal(x.size // hidden, experts)
    return Call("MoE", inputs, ["y"], attributes, tolerance=5e-6)


def qmoe(d: Draw) -> Call:
    experts, hidden, inner, attributes, wide = _mixture(d)
    bits, block = 4, d.one_of(0, 16, 32)
    shapes = {"fc1": (wide * inner, hidden), "fc2": (hidden, inner)}
    inputs: Inputs = {"x": d.normal(5, hidden), "router": d.normal(5, experts)}
    for name, (rows, columns) in shapes.items():
        inputs[name] = d.rng.integers(0, 256, (experts, rows, columns * bits // 8)).astype(np.uint8)
        scales = (experts, rows, columns // block) if block else (experts, rows)
        inputs[f"{name}_scales"] = d.rng.uniform(0.005, 0.03, scales).astype(np.float32)
        inputs[f"{name}_bias"] = d.maybe(experts, rows)
    attributes |= {"expert_weight_bits": bits, "weights_prepacked": 0} | ({"block_size": block} if block else {})
    constants = tuple(name for name in inputs if name not in ("x", "router") and inputs[name] is not None)
    return Call("QMoE", inputs, ["y"], attributes, constants=constants, tolerance=1e-5)


CALLS: dict[str, Callable[[Draw], Call]] = {
    function.__name__: function
    for function in (
        skip_norm,
        simplified_norm,
        rms_normalization,
        activation,
        fused_matmul,
        rotary,
        onnx_rotary,
        tensor_scatter,
        causal_conv,
        linear_attention,
        matmul_nbits,
        gather_block_quantized,
        multi_head_attention,
        attention,
        moe,
        qmoe,
    )
}


def compare(name: str, seed: int) -> bool:
    """Compares one call; False where onnxruntime itself refuses it."""
    call = CALLS[name](Draw(seed))
    model = one_node(
        call.op_type,
        call.inputs,
        call.outputs,
        call.attributes,
        domain=call.domain,
        opset=call.opset,
        constants=call.constants,
    )
    given = {key: array for key, array in call.inputs.items() if array is not None}
    try:
        kernel, ours = both(model, given)
    except (RunError, SessionError, KernelMissing) as error:
        assert error.where == "kernel", error
        return False
    for output, array in kernel.items():
        assert_close(array, ours[output], call.tolerance, output)
    return True


@pytest.mark.parametrize("name", CALLS)
def test_a_lowered_operator_equals_onnxruntime(name: str) -> None:
    @settings(max_examples=25)
    @given(st.integers(0, 2**32 - 1))
    def sample(seed: int) -> None:
        compare(name, seed)

    sample()


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_a_lowered_operator_equals_onnxruntime_200_times(name: str) -> None:
    for seed in range(200):
        compare(name, seed)


@pytest.mark.parametrize("name", CALLS)
def test_onnxruntime_takes_most_drawn_calls(name: str) -> None:
    assert sum(compare(name, seed) for seed in range(12)) >= 5
