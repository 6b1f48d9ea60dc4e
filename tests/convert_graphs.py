"""Growing caches whose positions and masks are counted in the graph, in the ways older exporters spell it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnx_llm_passes.runtime.samples.blocks import Tiny, arange, decoder, embed, lm_head
from onnx_llm_passes.runtime.samples.writer import FLOAT, INT64, Writer

ONE = Tiny(layers=1)
LOW = float(np.finfo(np.float32).min)
ROWS = 64  # of the table of learned positions
Mask = Callable[[Writer, ir.Value, ir.Value, ir.Value], ir.Value]
Angles = Callable[[Writer, ir.Value], "tuple[ir.Value, ir.Value]"]


def counted(mask: Mask, angles: Angles, *, learned: bool = False) -> ir.Model:
    """A decoder with token ids and caches as its only inputs: positions are ``past … past + seq - 1``, rank 1.

    ``mask`` takes the writer, query positions ``[S]``, and the lengths past and seq; ``angles`` gives cosine and sine.
    """
    c, w = ONE, Writer(opset=18)
    ids = w.input("input_ids", INT64, ["batch", "seq"])
    shape: list[int | str] = ["batch", c.kv_heads, "past", c.head]
    past = {kind: w.input(f"past_key_values.0.{kind}", FLOAT, shape) for kind in ("key", "value")}
    grown: dict[str, ir.Value] = {}

    def cache(layer: int, key: ir.Value, value: ir.Value) -> tuple[ir.Value, ir.Value]:
        grown.update({k: w.op("Concat", past[k], new, axis=2) for k, new in (("key", key), ("value", value))})
        return grown["key"], grown["value"]

    x = embed(w, ids, c)
    length, tokens = w.size(past["key"], 2), w.size(ids, 1)
    query = w.op("Range", length, w.op("Add", length, tokens), 1)
    if learned:
        x = w.op("Add", x, w.op("Gather", w.weight("positions.weight", ROWS, c.hidden), query))
    bias = mask(w, query, length, tokens)
    x = decoder(w, x, angles(w, query), cache=cache, mask=lambda scores, keys: w.op("Add", scores, bias), config=c)
    w.output("logits", lm_head(w, x, c), ["batch", "seq", c.vocab])
    for kind, value in grown.items():
        w.output(f"present.0.{kind}", value, ["batch", c.kv_heads, "past + seq", c.head])
    return w.model()


def flat_mask(w: Writer, query: ir.Value, past: ir.Value, tokens: ir.Value) -> ir.Value:
    """``[S, T]``, of two dimensions until it meets the scores."""
    rows = w.unsqueeze(arange(w, w.op("Add", past, tokens)), 0)
    return w.op("Where", w.op("LessOrEqual", rows, w.unsqueeze(query, 1)), 0.0, LOW)


def triangle_mask(w: Writer, query: ir.Value, past: ir.Value, tokens: ir.Value) -> ir.Value:
    """A filled ``[S, T]``, its upper triangle, times what lies behind the query: then two axes in front."""
    total = w.op("Add", past, tokens)
    shape = w.pack(tokens, total)
    full = w.op("ConstantOfShape", shape, value=ir.tensor(np.full(1, LOW, np.float32)))
    upper = w.op("Trilu", full, 1, upper=1)
    behind = w.op("Greater", arange(w, total), w.op("Reshape", query, [-1, 1]))
    return w.unsqueeze(w.op("Mul", upper, w.op("Cast", behind, to=FLOAT)), 0, 0)


def window_mask(w: Writer, query: ir.Value, past: ir.Value, tokens: ir.Value) -> ir.Value:
    """Three keys back at most, the difference of row and query compared with a constant."""
    rows = w.unsqueeze(arange(w, w.op("Add", past, tokens)), 0)
    line = w.unsqueeze(query, 1)
    seen = w.op("And", w.op("LessOrEqual", rows, line), w.op("Greater", w.op("Sub", rows, line), -3))
    return w.op("Where", w.unsqueeze(seen, 0, 1), 0.0, LOW)


def outer_angles(w: Writer, query: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The outer product of positions and inverse frequencies, ``[S, D]``, without a batch until the end."""
    inverse = (10000.0 ** -(np.arange(0, ONE.head, 2) / ONE.head)).astype(np.float32).reshape(1, -1)
    angles = w.op("MatMul", w.op("Cast", w.op("Unsqueeze", query, [1]), to=FLOAT), inverse)
    both = w.op("Concat", angles, angles, axis=-1)
    cos, sin = (w.unsqueeze(w.op(op, both), 0, 0) for op in ("Cos", "Sin"))
    return cos, sin


def no_angles(w: Writer, query: ir.Value) -> tuple[ir.Value, ir.Value]:
    """No rotation at all."""
    ones = np.ones((1, 1, 1, ONE.head), np.float32)
    return w.constant(ones), w.constant(ones * 0)


COUNTED: dict[str, Callable[[], ir.Model]] = {
    "flat mask, learned positions": lambda: counted(flat_mask, no_angles, learned=True),
    "triangle, outer product": lambda: counted(triangle_mask, outer_angles),
    "window, outer product": lambda: counted(window_mask, outer_angles),
}


def buffer_mask(w: Writer, query: ir.Value, past: ir.Value, tokens: ir.Value) -> ir.Value:
    """A stored triangle ``[1, 1, N, N]``, its rows ``past …`` and columns ``… past + seq`` cut out, as GPT-2 had it."""
    table = w.initializer("bias", np.tril(np.ones((1, 1, ROWS, ROWS), bool)))
    total = w.op("Add", past, tokens)
    start, end = w.unsqueeze(w.op("Sub", total, tokens), 0), w.unsqueeze(total, 0)
    lines = w.op("Slice", table, start, end, [2], [1])
    return w.op("Where", w.op("Slice", lines, [0], end, [3], [1]), 0.0, LOW)


def tail_mask(w: Writer, query: ir.Value, past: ir.Value, tokens: ir.Value) -> ir.Value:
    """The last ``seq`` lines of a triangle over past + seq, counted from the end."""
    total = w.op("Add", past, tokens)
    rows = arange(w, total)
    square = w.op("LessOrEqual", w.unsqueeze(rows, 0), w.unsqueeze(rows, 1))
    far = np.iinfo(np.int64).max
    lines = w.op("Slice", square, w.op("Neg", w.unsqueeze(tokens, 0)), [far], [0], [1])
    return w.op("Where", w.unsqueeze(lines, 0, 1), 0.0, LOW)


COUNTED |= {
    "stored triangle": lambda: counted(buffer_mask, outer_angles),
    "triangle's tail": lambda: counted(tail_mask, outer_angles),
}
