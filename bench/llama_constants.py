"""A Llama decoder as a TorchScript tracer writes it: 245 nodes a layer, constants as nodes, no shapes."""

from __future__ import annotations

import math

import numpy as np
from onnx import helper, numpy_helper

from .tracer import BOOL, FLOAT, INT64, Tracer

INT64_MAX = 9223372036854775807


def emit(t: Tracer) -> None:
    """Adds the whole decoder; inputs and outputs have the names that :func:`graphs.interface` gives them."""
    shared_norm = t.weight("model.layers.0.input_layernorm.weight", t.size.dtype, t.size.hidden)
    _alias_norms(t, shared_norm)
    embeddings = t.weight("model.embed_tokens.weight", t.size.dtype, t.size.vocab, t.size.hidden)
    with t.inside("model"):
        with t.inside("embed_tokens"):
            hidden = t.add("Gather", embeddings, "input_ids")
        mask = _mask(t, hidden)
        with t.inside("rotary_emb"):
            rotary = _rotary(t)
        for layer in range(t.size.layers):
            with t.inside(f"layers.{layer}"):
                hidden, rotary = _layer(t, layer, hidden, mask, rotary)
        with t.inside("norm"):
            hidden, _ = _norm(t, hidden, "model.norm.weight")
    with t.inside("lm_head"):
        t.add("MatMul", hidden, t.matmul_weight(t.size.dtype, t.size.hidden, t.size.vocab), out="logits")


def _alias_norms(t: Tracer, shared: str) -> None:
    # Tensors with equal values are written once and handed on by Identity.
    names = [f"model.layers.{i}.{kind}.weight" for i in range(t.size.layers) for kind in NORMS]
    for name in ["model.norm.weight", *reversed(names[1:])]:
        t.nodes.append(helper.make_node("Identity", [shared], [name], name=f"Identity_{len(t.nodes)}"))


NORMS = ("input_layernorm", "post_attention_layernorm")


def _size_of(t: Tracer, value: str, axis: int) -> str:
    return t.add("Gather", t.add("Shape", value), t.const(axis), axis=0)


def _unsqueeze(t: Tracer, value: str, *axes: int) -> str:
    for axis in axes:
        value = t.add("Unsqueeze", value, t.const([axis]))
    return value


def _stray_unsqueeze(t: Tracer, value: str) -> str:
    return t.add("Unsqueeze", value, t.stray_const("Unsqueeze", [0]))


def _mask(t: Tracer, hidden: str) -> str:
    past = _size_of(t, "past_key_values.0.key", 2)
    seq = _size_of(t, hidden, 1)
    end = t.add("Add", past, seq)
    start, stop = t.add("Cast", past, to=INT64), t.add("Cast", end, to=INT64)
    positions = t.add("Range", start, stop, t.const(1))
    seen = t.add("Cast", "attention_mask", to=BOOL)
    queries = _size_of(t, positions, 0)
    keys = t.add("Add", past, queries)
    batch = _size_of(t, hidden, 0)
    query_rows = _unsqueeze(t, positions, 0, 1, 3)
    batch_rows = _unsqueeze(t, _range(t, batch), 1, 2, 3)
    key_rows = _unsqueeze(t, _range(t, keys), 0, 1, 2)
    true = numpy_helper.from_array(np.array([True]))
    always = t.add("ConstantOfShape", t.const(np.zeros(0)), value=true)
    causal = t.add("And", always, t.add("Cast", t.add("LessOrEqual", key_rows, query_rows), to=BOOL))
    both = t.add("And", causal, _padding(t, seen, batch_rows, key_rows))
    target = t.add(
        "Concat",
        _unsqueeze(t, batch, 0),
        t.const([-1]),
        _unsqueeze(t, queries, 0),
        _unsqueeze(t, keys, 0),
        axis=0,
    )
    return _expand(t, both, target)


def _range(t: Tracer, end: str) -> str:
    stop = t.add("Cast", end, to=INT64)
    return t.add("Range", t.const(0), stop, t.const(1))


def _padding(t: Tracer, seen: str, batch_rows: str, key_rows: str) -> str:
    # attention_mask[batch, key] as an exporter flattens it: one Gather at batch * length + key.
    length = t.add("Gather", t.add("Shape", seen), t.const([1]), axis=0)
    flat = t.add("Flatten", seen, axis=2)
    index = t.add("Add", key_rows, t.add("Mul", batch_rows, length))
    picked = t.add("Gather", flat, index, axis=0)
    dims = t.add("Shape", index)
    line = t.add("Reshape", picked, t.const([-1]), allowzero=0)
    return t.add("Cast", t.add("Reshape", line, t.add("Concat", dims, axis=0), allowzero=0), to=BOOL)


def _expand(t: Tracer, value: str, target: str) -> str:
    # torch's expand: a dim of -1 means "as it is", so every -1 becomes 1 before ONNX's Expand.
    wanted = t.add("Reshape", target, t.const([-1]), allowzero=0)
    ones = t.add("ConstantOfShape", t.add("Shape", wanted), value=numpy_helper.from_array(np.array([1])))
    kept = t.add("Equal", wanted, t.add("Mul", ones, t.const(-1)))
    return t.add("Expand", value, t.add("Where", kept, ones, wanted))


def _rotary(t: Tracer) -> tuple[str, str]:
    half = t.size.head_dim // 2
    inverse = 1.0 / (10000.0 ** (np.arange(half, dtype=np.float32) / half))
    table = t.stray_const("Expand", inverse.reshape(1, half, 1), np.float32)
    batch = _unsqueeze(t, _size_of(t, "position_ids", 0), 0)
    rows = _expand(t, table, t.add("Concat", batch, t.const([-1]), t.const([1]), axis=0))
    rows = t.add("Cast", rows, to=FLOAT)
    columns = t.add("Cast", _unsqueeze(t, "position_ids", 1), to=FLOAT)
    angles = t.add("MatMul", t.add("Cast", rows, to=FLOAT), t.add("Cast", columns, to=FLOAT))
    turned = t.add("Transpose", angles, perm=[0, 2, 1])
    both = t.add("Concat", turned, turned, axis=-1)
    waves = [t.add("Mul", t.add(op, both), t.const(1.0, np.float32)) for op in ("Cos", "Sin")]
    cos, sin = (t.add("Cast", wave, to=t.size.dtype) for wave in waves)
    return cos, sin


def _norm(t: Tracer, hidden: str, weight: str) -> tuple[str, str]:
    wide = t.add("Cast", hidden, to=FLOAT)
    square = t.add("Pow", wide, t.const(2.0, np.float32))
    mean = t.add("ReduceMean", square, t.const([-1]), keepdims=1)
    root = t.add("Sqrt", t.add("Add", mean, t.const(1e-6, np.float32)))
    scaled = t.add("Mul", wide, t.add("Div", t.const(1.0, np.float32), root))
    narrow = t.add("Cast", scaled, to=t.size.dtype)
    # Where the cast to float32 is no change, a tracer takes the residual after it.
    return t.add("Mul", weight, narrow), wide if t.size.dtype == FLOAT else hidden


def _layer(t: Tracer, layer: int, hidden: str, mask: str, rotary: tuple[str, str]) -> tuple[str, tuple[str, str]]:
    with t.inside("input_layernorm"):
        normed, residual = _norm(t, hidden, f"model.layers.{layer}.input_layernorm.weight")
    with t.inside("self_attn"):
        attended, rotary = _attention(t, layer, normed, mask, rotary)
    hidden = t.add("Add", residual, attended)
    with t.inside("post_attention_layernorm"):
        normed, residual = _norm(t, hidden, f"model.layers.{layer}.post_attention_layernorm.weight")
    with t.inside("mlp"):
        fed = _mlp(t, normed)
    return t.add("Add", residual, fed), rotary


def _project(t: Tracer, scope: str, value: str, rows: int, columns: int) -> str:
    with t.inside(scope):
        return t.add("MatMul", value, t.matmul_weight(t.size.dtype, rows, columns))


def _attention(t: Tracer, layer: int, hidden: str, mask: str, rotary: tuple[str, str]) -> tuple[str, tuple[str, str]]:
    batch, seq = _size_of(t, hidden, 0), _size_of(t, hidden, 1)
    query, key, value = _heads(t, hidden, batch, seq)
    if layer == 0:
        rotary = (_unsqueeze(t, rotary[0], 1), _unsqueeze(t, rotary[1], 1))
    query, key = _rotate(t, query, rotary), _rotate(t, key, rotary)
    keys = t.add("Concat", f"past_key_values.{layer}.key", key, axis=-2, out=f"present.{layer}.key")
    values = t.add("Concat", f"past_key_values.{layer}.value", value, axis=-2, out=f"present.{layer}.value")
    keys, values = _repeat(t, keys), _repeat(t, values)
    visible = _slice(t, mask, "", _unsqueeze_of_length(t, keys), 3)
    scale = 1.0 / math.sqrt(math.sqrt(t.size.head_dim))
    turned = t.add("Transpose", keys, perm=[0, 1, 3, 2])
    scores = t.add(
        "MatMul", t.add("Mul", query, t.const(scale, t.size.numpy)), t.add("Mul", turned, t.const(scale, t.size.numpy))
    )
    bias = t.add("Where", visible, t.const([0.0], t.size.numpy), t.const([-np.inf], t.size.numpy))
    shares = t.add("Softmax", t.add("Add", scores, bias), axis=-1)
    # A row that sees no key is NaN after Softmax; the exporter zeroes it.
    shares = t.add("Where", t.add("IsNaN", shares), t.const([0.0], t.size.numpy), shares)
    mixed = t.add("Transpose", t.add("MatMul", shares, values), perm=[0, 2, 1, 3])
    dims = t.add("Concat", _stray_unsqueeze(t, batch), _stray_unsqueeze(t, seq), t.const([-1]), axis=0)
    joined = t.add("Reshape", mixed, dims, allowzero=0)
    return _project(t, "o_proj", joined, t.size.heads * t.size.head_dim, t.size.hidden), rotary


def _heads(t: Tracer, hidden: str, batch: str, seq: str) -> list[str]:
    found: list[str] = []
    for scope, heads in (("q_proj", t.size.heads), ("k_proj", t.size.kv_heads), ("v_proj", t.size.kv_heads)):
        flat = _project(t, scope, hidden, t.size.hidden, heads * t.size.head_dim)
        sizes = (_stray_unsqueeze(t, batch), _stray_unsqueeze(t, seq), t.const([-1]), t.const([t.size.head_dim]))
        split = t.add("Reshape", flat, t.add("Concat", *sizes, axis=0), allowzero=0)
        found.append(t.add("Transpose", split, perm=[0, 2, 1, 3]))
    return found


def _slice(t: Tracer, value: str, start: str, stop: str, axis: int) -> str:
    axes = t.const([axis])
    start, stop = start or t.const([0]), stop or t.const([INT64_MAX])
    return t.add("Slice", value, start, stop, axes, t.const([1]))


def _unsqueeze_of_length(t: Tracer, keys: str) -> str:
    return _unsqueeze(t, _size_of(t, keys, 2), 0)


def _rotate(t: Tracer, value: str, rotary: tuple[str, str]) -> str:
    straight = t.add("Mul", value, rotary[0])
    half = t.add("Div", _size_of(t, value, 3), t.const(2))
    half = t.add("Cast", t.add("Cast", half, to=INT64), to=INT64)
    low = _slice(t, value, "", _unsqueeze(t, half, 0), 3)
    high = _slice(t, value, _unsqueeze(t, half, 0), "", 3)
    turned = t.add("Concat", t.add("Neg", high), low, axis=-1)
    return t.add("Add", straight, t.add("Mul", turned, rotary[1]))


def _repeat(t: Tracer, value: str) -> str:
    groups = t.size.heads // t.size.kv_heads
    batch, heads, length, width = (_size_of(t, value, axis) for axis in range(4))
    spread = _unsqueeze(t, value, 2)
    front = (_unsqueeze(t, batch, 0), _unsqueeze(t, heads, 0), t.const([groups]))
    target = t.add("Concat", *front, _unsqueeze(t, length, 0), _unsqueeze(t, width, 0), axis=0)
    wide = _expand(t, spread, target)
    many = t.add("Mul", heads, t.const(groups))
    dims = t.add("Concat", *(_stray_unsqueeze(t, part) for part in (batch, many, length, width)), axis=0)
    return t.add("Reshape", wide, dims, allowzero=0)


def _mlp(t: Tracer, hidden: str) -> str:
    gate = _project(t, "gate_proj", hidden, t.size.hidden, t.size.inner)
    with t.inside("act_fn"):
        active = t.add("Mul", gate, t.add("Sigmoid", gate))
    up = _project(t, "up_proj", hidden, t.size.hidden, t.size.inner)
    return _project(t, "down_proj", t.add("Mul", active, up), t.size.inner, t.size.hidden)
