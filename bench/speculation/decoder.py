"""A static-cache decoder without waste: written by ScatterND at positions, read where it lies, heads grouped."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_llm_passes.runtime.samples.blocks import (
    Tiny,
    embed,
    feed_forward,
    lm_head,
    rms_norm,
    rotary_table,
    rotate,
    split_heads,
)
from onnx_llm_passes.runtime.samples.samples import add_cache_functions, ctx_scatter, last_token, position_mask
from onnx_llm_passes.runtime.samples.writer import FLOAT, INT64, Writer


def static_decoder(config: Tiny, ctx: int, seed: int = 0) -> ir.Model:
    """``input_ids``, ``position_ids`` ``[batch, seq]``, caches ``[batch, kv_heads, ctx, head]``; one row of logits.

    What is masked gets the smallest float and not minus infinity, so that padding stays finite wherever it is written.
    """
    w = Writer(opset=17, seed=seed)
    ids = w.input("input_ids", INT64, ["batch_size", "seq_len"])
    positions = w.input("position_ids", INT64, ["batch_size", "seq_len"])
    shape = ["batch_size", config.kv_heads, "ctx_len", config.head]
    past = [[w.input(f"past_{kind}.{at}", FLOAT, shape) for kind in ("key", "value")] for at in range(config.layers)]
    add_cache_functions(w, False)
    x = embed(w, ids, config)
    masked = position_mask(w, past[0][0], positions)
    added = w.op("Where", masked, float(np.finfo(np.float32).min), 0.0)
    angles = rotary_table(w, positions, config.head, rows=ctx)
    retained: list[ir.Value] = []
    for at, caches in enumerate(past):
        name = f"model.layers.{at}"
        with w.scope(f"model/layers.{at}"):
            hidden = rms_norm(w, x, f"{name}.input_layernorm.weight", config.hidden)
            query, *fresh = _project(w, hidden, f"{name}.self_attn", angles, config)
            written = [ctx_scatter(w, cache, [], positions, new) for cache, new in zip(caches, fresh, strict=True)]
            retained += written
            mixed = _attend(w, query, *written, added, config)
            weight = w.weight(f"{name}.self_attn.o_proj.weight", config.heads * config.head, config.hidden)
            x = w.op("Add", x, w.op("MatMul", mixed, weight))
            hidden = rms_norm(w, x, f"{name}.post_attention_layernorm.weight", config.hidden)
            x = w.op("Add", x, feed_forward(w, hidden, f"{name}.mlp", config))
    x = rms_norm(w, x, "model.norm.weight", config.hidden)
    w.output("logits", lm_head(w, last_token(w, x, positions), config), ["batch_size", 1, config.vocab])
    names = (f"past_{kind}.{at}" for at in range(config.layers) for kind in ("key", "value"))
    for name, value in zip(names, retained, strict=True):
        w.output(f"{name}_RetainedState", value, shape)
    return w.model()


def _project(
    w: Writer, x: ir.Value, name: str, angles: tuple[ir.Value, ir.Value], config: Tiny
) -> tuple[ir.Value, ir.Value, ir.Value]:
    widths = {"q_proj": config.heads, "k_proj": config.kv_heads, "v_proj": config.kv_heads}
    weights = [w.weight(f"{name}.{part}.weight", config.hidden, n * config.head) for part, n in widths.items()]
    query, key, value = (split_heads(w, w.op("MatMul", x, weight), config.head) for weight in weights)
    return rotate(w, query, *angles, config.head), rotate(w, key, *angles, config.head), value


def _attend(w: Writer, query: ir.Value, keys: ir.Value, values: ir.Value, added: ir.Value, config: Tiny) -> ir.Value:
    """The heads of one group as more rows of one product, so that no cache is repeated."""
    grouped = w.op("Reshape", query, [0, config.kv_heads, -1, config.head])
    scores = w.op("MatMul", grouped, w.op("Transpose", keys, perm=[0, 1, 3, 2]))
    batch, length, slots = w.size(query, 0), w.size(query, 2), w.size(keys, 2)
    apart = w.op("Reshape", scores, w.pack(batch, config.heads, length, slots))
    shares = w.op("Softmax", w.op("Add", w.op("Mul", apart, float(config.head**-0.5)), added), axis=-1)
    together = w.op("Reshape", shares, w.pack(batch, config.kv_heads, -1, slots))
    mixed = w.op("Reshape", w.op("MatMul", together, values), w.pack(batch, config.heads, length, config.head))
    return w.op("Reshape", w.op("Transpose", mixed, perm=[0, 2, 1, 3]), [0, 0, config.heads * config.head])
