"""Builds the parts every sample decoder shares, as exporters write them: norm, rotary embedding, attention, MLP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .writer import FLOAT, INT64, Writer

Cache = Callable[[int, ir.Value, ir.Value], tuple[ir.Value, ir.Value]]  # layer, new keys and values -> all of them
Mask = Callable[[ir.Value, ir.Value], ir.Value]  # scores [B,H,S,T], keys -> masked scores
Norm = Callable[[Writer, ir.Value, str, int], ir.Value]


@dataclass(frozen=True)
class Tiny:
    """The sizes of a sample decoder; small enough to run in milliseconds, grouped heads so that they are repeated."""

    layers: int = 2
    hidden: int = 32
    heads: int = 4
    kv_heads: int = 2
    head: int = 8
    ffn: int = 48
    vocab: int = 128


def rms_norm(w: Writer, x: ir.Value, name: str, width: int) -> ir.Value:
    """``x / sqrt(mean(x²) + eps) · weight``, out of primitive operators."""
    mean = w.reduce("ReduceMean", w.op("Pow", x, 2.0), -1)
    inverse = w.op("Div", 1.0, w.op("Sqrt", w.op("Add", mean, 1e-6)))
    weight = w.weights.get(name) or w.initializer(name, np.ones(width, np.float32))
    return w.op("Mul", weight, w.op("Mul", x, inverse))


def rotary(w: Writer, positions: ir.Value, head: int) -> tuple[ir.Value, ir.Value]:
    """Cosine and sine ``[B,1,S,head]`` of integer positions ``[B,S]``, by arithmetic with the inverse frequencies."""
    inverse = (10000.0 ** -(np.arange(0, head, 2) / head)).astype(np.float32).reshape(1, -1, 1)
    with w.scope("rotary_emb"):
        column = w.op("Cast", w.op("Unsqueeze", positions, [1]), to=FLOAT)
        angles = w.op("Transpose", w.op("MatMul", inverse, column), perm=[0, 2, 1])
        both = w.op("Concat", angles, angles, axis=-1)
        return w.unsqueeze(w.op("Cos", both), 1), w.unsqueeze(w.op("Sin", both), 1)


def rotary_table(w: Writer, positions: ir.Value, head: int, rows: int = 256) -> tuple[ir.Value, ir.Value]:
    """Cosine and sine ``[B,1,S,head]`` looked up in tables by position."""
    angles = np.arange(rows)[:, None] * (10000.0 ** -(np.arange(0, head, 2) / head))[None, :]
    both = np.concatenate([angles, angles], axis=-1)
    cosines = w.initializer("model.cos_cached", np.cos(both).astype(np.float32))
    sines = w.initializer("model.sin_cached", np.sin(both).astype(np.float32))
    cos, sin = (w.unsqueeze(w.op("Gather", table, positions, axis=0), 1) for table in (cosines, sines))
    return cos, sin


def rotate(w: Writer, x: ir.Value, cos: ir.Value, sin: ir.Value, head: int) -> ir.Value:
    """Applies the rotary embedding to ``[B,H,S,D]``."""
    first = w.op("Slice", x, [0], [head // 2], [3], [1])
    second = w.op("Slice", x, [head // 2], [np.iinfo(np.int64).max], [3], [1])
    turned = w.op("Concat", w.op("Neg", second), first, axis=-1)
    return w.op("Add", w.op("Mul", x, cos), w.op("Mul", turned, sin))


def split_heads(w: Writer, x: ir.Value, head: int) -> ir.Value:
    """``[B,S,H·D]`` to ``[B,H,S,D]``."""
    shape = w.pack(w.size(x, 0), w.size(x, 1), -1, head)
    return w.op("Transpose", w.op("Reshape", x, shape), perm=[0, 2, 1, 3])


def repeat_heads(w: Writer, x: ir.Value, times: int) -> ir.Value:
    """Each of the cache's heads ``times`` times: ``[B,H,T,D]`` to ``[B,H·times,T,D]``."""
    batch, heads, length, head = (w.size(x, axis) for axis in range(4))
    wide = w.op("Expand", w.unsqueeze(x, 2), w.pack(batch, heads, times, length, head))
    return w.op("Reshape", wide, w.pack(batch, w.op("Mul", heads, times), length, head))


def attend(w: Writer, query: ir.Value, keys: ir.Value, values: ir.Value, *, mask: Mask, config: Tiny) -> ir.Value:
    """Grouped attention over cached keys and values ``[B,H,T,D]``; gives ``[B,S,H·D]``."""
    groups = config.heads // config.kv_heads
    wide_keys = w.op("Transpose", repeat_heads(w, keys, groups), perm=[0, 1, 3, 2])
    scores = w.op("Mul", w.op("MatMul", query, wide_keys), float(config.head**-0.5))
    weights = w.op("Softmax", mask(scores, keys), axis=-1)
    mixed = w.op("Transpose", w.op("MatMul", weights, repeat_heads(w, values, groups)), perm=[0, 2, 1, 3])
    return w.op("Reshape", mixed, w.pack(w.size(mixed, 0), w.size(mixed, 1), -1))


def feed_forward(w: Writer, x: ir.Value, name: str, config: Tiny) -> ir.Value:
    """SwiGLU."""
    gate = w.op("MatMul", x, w.weight(f"{name}.gate_proj.weight", config.hidden, config.ffn))
    up = w.op("MatMul", x, w.weight(f"{name}.up_proj.weight", config.hidden, config.ffn))
    active = w.op("Mul", w.op("Mul", gate, w.op("Sigmoid", gate)), up)
    return w.op("MatMul", active, w.weight(f"{name}.down_proj.weight", config.ffn, config.hidden))


def embed(w: Writer, ids: ir.Value, config: Tiny) -> ir.Value:
    """Rows of the embedding table."""
    return w.op("Gather", w.weight("model.embed_tokens.weight", config.vocab, config.hidden, scale=1.0), ids)


def decoder(
    w: Writer,
    x: ir.Value,
    angles: tuple[ir.Value, ir.Value],
    *,
    cache: Cache,
    mask: Mask,
    config: Tiny,
    norm: Norm = rms_norm,
) -> ir.Value:
    """All layers over hidden states ``[B,S,hidden]``, ended by the final norm."""
    for layer in range(config.layers):
        name = f"model.layers.{layer}"
        with w.scope(f"model/layers.{layer}"):
            hidden = norm(w, x, f"{name}.input_layernorm.weight", config.hidden)
            with w.scope("self_attn"):
                mixed = _self_attention(w, hidden, angles, layer, cache=cache, mask=mask, config=config)
            x = w.op("Add", x, mixed)
            hidden = norm(w, x, f"{name}.post_attention_layernorm.weight", config.hidden)
            with w.scope("mlp"):
                x = w.op("Add", x, feed_forward(w, hidden, f"{name}.mlp", config))
    return norm(w, x, "model.norm.weight", config.hidden)


def lm_head(w: Writer, x: ir.Value, config: Tiny) -> ir.Value:
    """Logits over the vocabulary."""
    return w.op("MatMul", x, w.weight("lm_head.weight", config.hidden, config.vocab))


def _self_attention(
    w: Writer, x: ir.Value, angles: tuple[ir.Value, ir.Value], layer: int, *, cache: Cache, mask: Mask, config: Tiny
) -> ir.Value:
    name = f"model.layers.{layer}.self_attn"
    widths = {"q_proj": config.heads, "k_proj": config.kv_heads, "v_proj": config.kv_heads}
    weights = [w.weight(f"{name}.{part}.weight", config.hidden, n * config.head) for part, n in widths.items()]
    query, key, value = (split_heads(w, w.op("MatMul", x, weight), config.head) for weight in weights)
    query, key = rotate(w, query, *angles, config.head), rotate(w, key, *angles, config.head)
    keys, values = cache(layer, key, value)
    mixed = attend(w, query, keys, values, mask=mask, config=config)
    return w.op("MatMul", mixed, w.weight(f"{name}.o_proj.weight", config.heads * config.head, config.hidden))


def arange(w: Writer, limit: ir.Value) -> ir.Value:
    """``0 … limit - 1`` as TorchScript writes it."""
    return w.op("Range", 0, w.op("Cast", limit, to=INT64), 1)
