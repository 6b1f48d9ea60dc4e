"""A decoder with cross-attention, as exporters of encoder-decoder models split it off: with a past, or the first."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_llm_passes.runtime.samples.blocks import Tiny, decoder, embed, lm_head, rms_norm, rotary, split_heads
from onnx_llm_passes.runtime.samples.samples import add_mask
from onnx_llm_passes.runtime.samples.writer import BOOL, FLOAT, INT64, Writer

ONE = Tiny(layers=1, kv_heads=4)
LOW = float(np.finfo(np.float32).min)
Heads = tuple[ir.Value, ir.Value]


def cross_decoder(*, past: bool = True, own_mask: bool = False) -> ir.Model:
    """One layer of self- and cross-attention under ``encoder_attention_mask``; positions are counted from the past.

    With ``past`` the encoder's keys and values are inputs; without, they are projected from ``encoder_hidden_states``
    and leave the graph. ``own_mask`` adds an attention mask over past and new tokens, under an ``And``.
    """
    c, w = ONE, Writer(opset=18)
    ids = w.input("input_ids", INT64, ["batch", "seq"])
    foreign = w.input("encoder_attention_mask", INT64, ["batch", "frames"])
    own = w.input("attention_mask", INT64, ["batch", "past + seq" if past else "seq"]) if own_mask else None
    length = w.size(_cache(w, "key"), 2) if past else w.op("Constant", value=ir.tensor(np.array(0, np.int64)))
    query = w.op("Range", length, w.op("Add", length, w.size(ids, 1)), 1)
    seen = w.op(
        "LessOrEqual",
        w.unsqueeze(w.op("Range", 0, w.op("Add", length, w.size(ids, 1)), 1), 0, 1, 2),
        w.unsqueeze(query, 0, 1, 3),
    )
    if own is not None:
        seen = w.op("And", seen, w.unsqueeze(w.op("Cast", own, to=BOOL), 1, 2))
    present: dict[str, ir.Value] = {}

    def cache(layer: int, key: ir.Value, value: ir.Value) -> Heads:
        for kind, new in (("key", key), ("value", value)):
            present[kind] = w.op("Concat", _cache(w, kind), new, axis=2) if past else w.op("Identity", new)
        return present["key"], present["value"]

    angles = rotary(w, w.unsqueeze(query, 0), c.head)
    x = decoder(w, embed(w, ids, c), angles, cache=cache, mask=lambda s, k: add_mask(w, s, k, seen), config=c)
    x, crossing = _cross(w, x, foreign, past)
    w.output("logits", lm_head(w, x, c), ["batch", "seq", c.vocab])
    for kind, value in present.items():
        w.output(f"present.0.decoder.{kind}", value, ["batch", c.kv_heads, "past + seq" if past else "seq", c.head])
    for kind, value in ({} if past else crossing).items():
        w.output(f"present.0.encoder.{kind}", value, ["batch", c.kv_heads, "frames", c.head])
    return w.model()


def _cache(w: Writer, kind: str) -> ir.Value:
    name = f"past_key_values.0.decoder.{kind}"
    found = next((value for value in w.inputs if value.name == name), None)
    return found if found is not None else w.input(name, FLOAT, ["batch", ONE.kv_heads, "past", ONE.head])


def _cross(w: Writer, x: ir.Value, mask: ir.Value, past: bool) -> tuple[ir.Value, dict[str, ir.Value]]:
    c = ONE
    width, shape = c.heads * c.head, ["batch", c.kv_heads, "frames", c.head]
    hidden = rms_norm(w, x, "cross.norm.weight", c.hidden)
    query = split_heads(w, w.op("MatMul", hidden, w.weight("cross.q.weight", c.hidden, width)), c.head)
    if past:
        held = {kind: w.input(f"past_key_values.0.encoder.{kind}", FLOAT, shape) for kind in ("key", "value")}
    else:
        frames = w.input("encoder_hidden_states", FLOAT, ["batch", "frames", c.hidden])
        rows = {
            kind: w.op(
                "Add",
                w.op("MatMul", frames, w.weight(f"cross.{kind}.weight", c.hidden, width)),
                w.weight(f"cross.{kind}.bias", width),
            )
            for kind in ("key", "value")
        }
        held = {kind: split_heads(w, value, c.head) for kind, value in rows.items()}
    bias = w.op("Where", w.unsqueeze(w.op("Cast", mask, to=BOOL), 1, 2), 0.0, LOW)
    scores = w.op("MatMul", query, w.op("Transpose", held["key"], perm=[0, 1, 3, 2]))
    weights = w.op("Softmax", w.op("Add", scores, bias), axis=-1)
    mixed = w.op("Transpose", w.op("MatMul", weights, held["value"]), perm=[0, 2, 1, 3])
    flat = w.op("Reshape", mixed, w.pack(w.size(mixed, 0), w.size(mixed, 1), -1))
    return w.op("Add", x, w.op("MatMul", flat, w.weight("cross.o.weight", width, c.hidden))), held
