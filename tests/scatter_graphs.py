"""Small graphs whose cache is written in place at positions, one for each way exporters spell it."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnx_llm_passes.runtime.samples.blocks import decoder, embed, rotary_table
from onnx_llm_passes.runtime.samples.samples import add_cache_functions, ctx_read, ctx_scatter, fill_mask, position_mask
from onnx_llm_passes.runtime.samples.writer import FLOAT, INT64, Writer

from .append_graphs import ONE, Pair, finish

Write = Callable[[Writer, ir.Value, ir.Value, ir.Value], Pair]  # past, positions, new rows -> rows to read, what leaves


def written_graph(
    write: Write, *, opset: int = 18, rank: int = 4, extra: str = "", axes: tuple[str, ...] = ("batch", "seq")
) -> ir.Model:
    """A one-layer decoder whose caches are written in place at ``position_ids``, each way ``write`` spells it."""
    c = ONE
    w = Writer(opset=opset, ir_version=11 if opset > 22 else 8)
    ids = w.input("input_ids", INT64, ["batch", "seq"])
    given = w.input("position_ids", INT64, list(axes))
    positions = given if len(axes) > 1 else w.op("Unsqueeze", given, [0])
    starts = w.input(extra, INT64, ["batch"]) if extra else positions
    shape: list[int | str] = (
        ["batch", c.kv_heads, "ctx", c.head] if rank == 4 else ["batch", "ctx", c.kv_heads * c.head]
    )
    past = {kind: w.input(f"cache_{kind}.0", FLOAT, shape) for kind in ("key", "value")}
    leaving: dict[str, ir.Value] = {}

    def cache(layer: int, key: ir.Value, value: ir.Value) -> Pair:
        read: dict[str, ir.Value] = {}
        for kind, new in (("key", key), ("value", value)):
            read[kind], leaving[kind] = write(w, past[kind], starts, new)
        return read["key"], read["value"]

    x = embed(w, ids, c)
    masked = position_mask(w, past["key"], positions, axis=2 if rank == 4 else 1)
    fill = functools.partial(fill_mask, w, masked)
    x = decoder(w, x, rotary_table(w, positions, c.head), cache=cache, mask=fill, config=c)
    finish(w, x, c, ["batch", "seq"])
    for kind, value in leaving.items():
        w.output(f"updated_{kind}.0", value, shape)
    return w.model()


def scatter_nd_transposed() -> ir.Model:
    """ScatterND on the ``[ctx,B,H,D]`` view of the cache, at the positions of row 0, as static caches export."""

    def write(w: Writer, past: ir.Value, positions: ir.Value, new: ir.Value) -> Pair:
        slots = w.op("Unsqueeze", w.op("Gather", positions, 0, axis=0), [-1])
        rows = w.op(
            "ScatterND", w.op("Transpose", past, perm=[2, 0, 1, 3]), slots, w.op("Transpose", new, perm=[2, 0, 1, 3])
        )
        updated = w.op("Transpose", rows, perm=[1, 2, 0, 3])
        return updated, updated

    return written_graph(write)


def scatter_elements() -> ir.Model:
    """ScatterElements along axis 2, the positions expanded to the new rows' shape."""

    def write(w: Writer, past: ir.Value, positions: ir.Value, new: ir.Value) -> Pair:
        index = w.op("Expand", w.unsqueeze(w.op("Unsqueeze", positions, [1]), -1), w.op("Shape", new))
        updated = w.op("ScatterElements", past, index, new, axis=2)
        return updated, updated

    return written_graph(write)


def scatter_shared_positions() -> ir.Model:
    """ScatterElements at positions ``[seq]`` that all rows of the batch share, as static caches export."""

    def write(w: Writer, past: ir.Value, positions: ir.Value, new: ir.Value) -> Pair:
        index = w.op("Expand", w.op("Unsqueeze", positions, [1, 3]), w.op("Shape", new))
        updated = w.op("ScatterElements", past, index, new, axis=2)
        return updated, updated

    return written_graph(write, axes=("seq",))


def scatter_three_dims() -> ir.Model:
    """ScatterElements on caches of rank 3, ``[B,ctx,H·D]``, along axis 1."""
    width = ONE.kv_heads * ONE.head

    def write(w: Writer, past: ir.Value, positions: ir.Value, new: ir.Value) -> Pair:
        flat = w.op("Reshape", w.op("Transpose", new, perm=[0, 2, 1, 3]), [0, 0, width])
        index = w.op("Expand", w.op("Unsqueeze", positions, [-1]), w.op("Shape", flat))
        updated = w.op("ScatterElements", past, index, flat, axis=1)
        heads = w.op("Reshape", updated, [0, 0, ONE.kv_heads, ONE.head])
        return w.op("Transpose", heads, perm=[0, 2, 1, 3]), updated

    return written_graph(write, rank=3)


def tensor_scatter(mode: str = "linear") -> ir.Model:
    """TensorScatter (opset 24): the new rows are written from ``write_indices`` on, round the end if ``circular``."""

    def write(w: Writer, past: ir.Value, starts: ir.Value, new: ir.Value) -> Pair:
        updated = w.op("TensorScatter", past, new, starts, axis=2, mode=mode)
        return updated, updated

    return written_graph(write, opset=24, extra="write_indices")


def scatter_mrope() -> ir.Model:
    """Positions ``[4,B,S]``: row 0 says where caches are written, the others turn the rotary embedding."""
    c = ONE
    w = Writer(opset=17)
    ids = w.input("input_ids", INT64, ["batch", "seq"])
    positions = w.input("position_ids", INT64, [4, "batch", "seq"])
    shape: list[int | str] = ["batch", c.kv_heads, "ctx", c.head]
    past = {kind: w.input(f"past_{kind}.0", FLOAT, shape) for kind in ("key", "value")}
    add_cache_functions(w, batch_index=False)
    slots = w.op("Gather", positions, 0, axis=0)
    written: dict[str, ir.Value] = {}

    def cache(layer: int, key: ir.Value, value: ir.Value) -> Pair:
        written.update({k: ctx_scatter(w, past[k], [], slots, new) for k, new in (("key", key), ("value", value))})
        length = w.size(written["key"], 2)
        return ctx_read(w, written["key"], written["value"], [], slots, length=length, no_index=0)

    fill = functools.partial(fill_mask, w, position_mask(w, past["key"], slots))
    turned = w.op("Squeeze", w.op("Slice", positions, [1], [2], [0]), [0])
    x = decoder(w, embed(w, ids, c), rotary_table(w, turned, c.head), cache=cache, mask=fill, config=c)
    finish(w, x, c, ["batch", "seq"])
    for kind, value in written.items():
        w.output(f"past_{kind}.0_RetainedState", value, shape)
    return w.model()


def standard_attention(*, index: bool, count: bool) -> ir.Model:
    """The standard's static cache: TensorScatter, then Attention-24 with ``is_causal``, with a length where ``count``.

    Without ``index`` the rows are written from 0 on, as the operator's text has it for a prefill.
    """
    c = ONE
    w = Writer(opset=24, ir_version=11)
    ids = w.input("input_ids", INT64, ["batch", "seq"])
    starts = [w.input("write_indices", INT64, ["batch"])] if index else []
    counted = [None, None, None, w.input("nonpad_kv_seqlen", INT64, ["batch"])] if count else []
    shape: list[int | str] = ["batch", c.kv_heads, "ctx", c.head]
    past = [w.input(f"cache_{kind}.0", FLOAT, shape) for kind in ("key", "value")]
    x = embed(w, ids, c)
    rng = np.random.default_rng(3)
    made: list[ir.Value] = []
    for kind, heads in (("query", c.heads), ("key", c.kv_heads), ("value", c.kv_heads)):
        weight = w.initializer(f"{kind}.weight", rng.standard_normal((c.hidden, heads * c.head)).astype(np.float32))
        rows = w.op("Reshape", w.op("MatMul", x, weight), [0, 0, heads, c.head])
        made.append(w.op("Transpose", rows, perm=[0, 2, 1, 3]))
    written = [w.op("TensorScatter", old, new, *starts, axis=2) for old, new in zip(past, made[1:], strict=True)]
    attended = w.op("Attention", made[0], *written, *counted, is_causal=1)
    joined = w.op("Reshape", w.op("Transpose", attended, perm=[0, 2, 1, 3]), [0, 0, c.heads * c.head])
    finish(w, joined, c, ["batch", "seq"])
    for kind, value in zip(("key", "value"), written, strict=True):
        w.output(f"updated_{kind}.0", value, shape)
    return w.model()
