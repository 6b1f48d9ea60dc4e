"""The same decoder as a graph-capturing exporter writes it: 86 nodes a layer, shared constants, shapes everywhere."""

from __future__ import annotations

import math

import numpy as np

from .tracer import BOOL, FLOAT, INT64, Dims, Tracer

B, S, T = "batch_size", "sequence_length", "past_sequence_length + sequence_length"
INT64_MAX = 9223372036854775807


def emit(t: Tracer) -> None:
    """Adds the whole decoder; inputs and outputs have the names that :func:`graphs.interface` gives them."""
    embeddings = t.weight("model.embed_tokens.weight", t.size.dtype, t.size.vocab, t.size.hidden)
    with t.inside("model"):
        hidden = t.add("Gather", embeddings, "input_ids", dtype=t.size.dtype, dims=[B, S, t.size.hidden])
        bias = _bias(t)
        with t.inside("rotary_emb"):
            rotary = _rotary(t)
        for layer in range(t.size.layers):
            with t.inside(f"layers.{layer}"):
                hidden = _layer(t, layer, hidden, bias, rotary)
        with t.inside("norm"):
            hidden = _norm(t, hidden, "model.norm.weight")
    head = t.weight("lm_head.weight", t.size.dtype, t.size.hidden, t.size.vocab)
    t.add("MatMul", hidden, head, out="logits")


def _ints(t: Tracer, op: str, *inputs: str, dims: Dims, **attributes: int) -> str:
    return t.add(op, *inputs, dtype=INT64, dims=dims, **attributes)


def _size_of(t: Tracer, value: str, axis: int, rank: int) -> str:
    return _ints(t, "Gather", _ints(t, "Shape", value, dims=[rank]), t.const([axis]), dims=[1], axis=0)


def _bias(t: Tracer) -> str:
    # Added to the scores: 0 where key <= query and the mask has a one, the type's lowest number elsewhere.
    total = _size_of(t, "attention_mask", 1, 2)
    total = _ints(t, "Squeeze", total, t.const([0]), dims=[])
    keys = _ints(t, "Range", t.const(0), total, t.const(1), dims=[T])
    past = _size_of(t, "past_key_values.0.key", 2, 4)
    steps = _ints(t, "Squeeze", _size_of(t, "input_ids", 1, 2), t.const([0]), dims=[])
    queries = _ints(t, "Add", _ints(t, "Range", t.const(0), steps, t.const(1), dims=[S]), past, dims=[S])
    queries = _ints(t, "Unsqueeze", queries, t.const([1]), dims=[S, 1])
    causal = t.add("LessOrEqual", keys, queries, dtype=BOOL, dims=[S, T])
    seen = t.add("Cast", "attention_mask", to=BOOL, dtype=BOOL, dims=[B, T])
    seen = t.add("Unsqueeze", seen, t.const([1, 2]), dtype=BOOL, dims=[B, 1, 1, T])
    visible = t.add("And", causal, seen, dtype=BOOL, dims=[B, 1, S, T])
    lowest = float(np.finfo(t.size.numpy).min)
    zero, low = t.const(0.0, t.size.numpy), t.const(lowest, t.size.numpy)
    return t.add("Where", visible, zero, low, dtype=t.size.dtype, dims=[B, 1, S, T])


def _rotary(t: Tracer) -> tuple[str, str]:
    half = t.size.head_dim // 2
    inverse = t.const((1.0 / (10000.0 ** (np.arange(half) / half))).reshape(1, 1, half), np.float32)
    columns = t.add("Cast", "position_ids", to=FLOAT, dtype=FLOAT, dims=[B, S])
    columns = t.add("Unsqueeze", columns, t.const([2]), dtype=FLOAT, dims=[B, S, 1])
    angles = t.add("Mul", columns, inverse, dtype=FLOAT, dims=[B, S, half])
    both = t.add("Concat", angles, angles, axis=-1, dtype=FLOAT, dims=[B, S, t.size.head_dim])

    def wave(op: str) -> str:
        wide = t.add(op, both, dtype=FLOAT, dims=[B, S, t.size.head_dim])
        return t.add("Cast", wide, to=t.size.dtype, dtype=t.size.dtype, dims=[B, S, t.size.head_dim])

    return wave("Cos"), wave("Sin")


def _norm(t: Tracer, hidden: str, weight: str) -> str:
    dims, column = [B, S, t.size.hidden], [B, S, 1]
    wide = t.add("Cast", hidden, to=FLOAT, dtype=FLOAT, dims=dims)
    square = t.add("Pow", wide, t.const(2.0, np.float32), dtype=FLOAT, dims=dims)
    mean = t.add("ReduceMean", square, t.const([-1]), keepdims=1, dtype=FLOAT, dims=column)
    mean = t.add("Add", mean, t.const(1e-6, np.float32), dtype=FLOAT, dims=column)
    scale = t.add("Reciprocal", t.add("Sqrt", mean, dtype=FLOAT, dims=column), dtype=FLOAT, dims=column)
    scaled = t.add("Mul", wide, scale, dtype=FLOAT, dims=dims)
    narrow = t.add("Cast", scaled, to=t.size.dtype, dtype=t.size.dtype, dims=dims)
    return t.add("Mul", t.weight(weight, t.size.dtype, t.size.hidden), narrow, dtype=t.size.dtype, dims=dims)


def _layer(t: Tracer, layer: int, hidden: str, bias: str, rotary: tuple[str, str]) -> str:
    dims = [B, S, t.size.hidden]
    with t.inside("input_layernorm"):
        normed = _norm(t, hidden, f"model.layers.{layer}.input_layernorm.weight")
    with t.inside("self_attn"):
        attended = _attention(t, layer, normed, bias, rotary)
    hidden = t.add("Add", hidden, attended, dtype=t.size.dtype, dims=dims)
    with t.inside("post_attention_layernorm"):
        normed = _norm(t, hidden, f"model.layers.{layer}.post_attention_layernorm.weight")
    with t.inside("mlp"):
        fed = _mlp(t, layer, normed)
    return t.add("Add", hidden, fed, dtype=t.size.dtype, dims=dims)


def _project(t: Tracer, name: str, value: str, rows: int, columns: int) -> str:
    weight = t.weight(f"model.layers.{name}.weight", t.size.dtype, rows, columns)
    return t.add("MatMul", value, weight, dtype=t.size.dtype, dims=[B, S, columns])


def _attention(t: Tracer, layer: int, hidden: str, bias: str, rotary: tuple[str, str]) -> str:
    name, width = f"{layer}.self_attn", t.size.head_dim
    cos, sin = (t.add("Unsqueeze", x, t.const([1]), dtype=t.size.dtype, dims=[B, 1, S, width]) for x in rotary)
    rotary = (cos, sin)
    query = _rotate(t, _heads(t, f"{name}.q_proj", hidden, t.size.heads), t.size.heads, rotary)
    key = _rotate(t, _heads(t, f"{name}.k_proj", hidden, t.size.kv_heads), t.size.kv_heads, rotary)
    value = _heads(t, f"{name}.v_proj", hidden, t.size.kv_heads)
    keys = t.add("Concat", f"past_key_values.{layer}.key", key, axis=2, out=f"present.{layer}.key")
    values = t.add("Concat", f"past_key_values.{layer}.value", value, axis=2, out=f"present.{layer}.value")
    keys, values = _repeat(t, keys), _repeat(t, values)
    turned = t.add("Transpose", keys, perm=[0, 1, 3, 2], dtype=t.size.dtype, dims=[B, t.size.heads, width, T])
    square = [B, t.size.heads, S, T]
    scores = t.add("MatMul", query, turned, dtype=t.size.dtype, dims=square)
    scale = t.const(1.0 / math.sqrt(width), t.size.numpy)
    scores = t.add("Mul", scores, scale, dtype=t.size.dtype, dims=square)
    length = _size_of(t, keys, 2, 4)
    cut = t.add("Slice", bias, t.const([0]), length, t.const([3]), dtype=t.size.dtype, dims=[B, 1, S, T])
    wide = t.add("Cast", t.add("Add", scores, cut, dtype=t.size.dtype, dims=square), to=FLOAT, dtype=FLOAT, dims=square)
    shares = t.add("Softmax", wide, axis=-1, dtype=FLOAT, dims=square)
    shares = t.add("Cast", shares, to=t.size.dtype, dtype=t.size.dtype, dims=square)
    mixed = t.add("MatMul", shares, values, dtype=t.size.dtype, dims=[B, t.size.heads, S, width])
    mixed = t.add("Transpose", mixed, perm=[0, 2, 1, 3], dtype=t.size.dtype, dims=[B, S, t.size.heads, width])
    target = _ints(t, "Concat", _size_of(t, hidden, 0, 3), _size_of(t, hidden, 1, 3), t.const([-1]), dims=[3], axis=0)
    joined = t.add("Reshape", mixed, target, dtype=t.size.dtype, dims=[B, S, t.size.heads * width])
    return _project(t, f"{name}.o_proj", joined, t.size.heads * width, t.size.hidden)


def _heads(t: Tracer, name: str, hidden: str, heads: int) -> str:
    flat = _project(t, name, hidden, t.size.hidden, heads * t.size.head_dim)
    dims = t.const([0, 0, heads, t.size.head_dim])
    split = t.add("Reshape", flat, dims, dtype=t.size.dtype, dims=[B, S, heads, t.size.head_dim])
    return t.add("Transpose", split, perm=[0, 2, 1, 3], dtype=t.size.dtype, dims=[B, heads, S, t.size.head_dim])


def _rotate(t: Tracer, value: str, heads: int, rotary: tuple[str, str]) -> str:
    half, dtype = t.size.head_dim // 2, t.size.dtype
    dims, part = [B, heads, S, t.size.head_dim], [B, heads, S, half]
    low = t.add("Slice", value, t.const([0]), t.const([half]), t.const([3]), dtype=dtype, dims=part)
    high = t.add("Slice", value, t.const([half]), t.const([INT64_MAX]), t.const([3]), dtype=dtype, dims=part)
    turned = t.add("Concat", t.add("Neg", high, dtype=dtype, dims=part), low, axis=-1, dtype=dtype, dims=dims)
    straight = t.add("Mul", value, rotary[0], dtype=dtype, dims=dims)
    return t.add("Add", straight, t.add("Mul", turned, rotary[1], dtype=dtype, dims=dims), dtype=dtype, dims=dims)


def _repeat(t: Tracer, value: str) -> str:
    groups, width, dtype = t.size.heads // t.size.kv_heads, t.size.head_dim, t.size.dtype
    spread = t.add("Unsqueeze", value, t.const([2]), dtype=dtype, dims=[B, t.size.kv_heads, 1, T, width])
    shape = _ints(t, "Shape", value, dims=[4])
    front = _ints(t, "Slice", shape, t.const([0]), t.const([2]), dims=[2])
    back = _ints(t, "Slice", shape, t.const([2]), t.const([4]), dims=[2])
    target = _ints(t, "Concat", front, t.const([groups]), back, dims=[5], axis=0)
    wide = t.add("Expand", spread, target, dtype=dtype, dims=[B, t.size.kv_heads, groups, T, width])
    dims = t.const([0, t.size.heads, -1, width])
    return t.add("Reshape", wide, dims, dtype=dtype, dims=[B, t.size.heads, T, width])


def _mlp(t: Tracer, layer: int, hidden: str) -> str:
    dims = [B, S, t.size.inner]
    gate = _project(t, f"{layer}.mlp.gate_proj", hidden, t.size.hidden, t.size.inner)
    active = t.add("Sigmoid", gate, dtype=t.size.dtype, dims=dims)
    active = t.add("Mul", gate, active, dtype=t.size.dtype, dims=dims)
    up = _project(t, f"{layer}.mlp.up_proj", hidden, t.size.hidden, t.size.inner)
    product = t.add("Mul", active, up, dtype=t.size.dtype, dims=dims)
    return _project(t, f"{layer}.mlp.down_proj", product, t.size.inner, t.size.hidden)
