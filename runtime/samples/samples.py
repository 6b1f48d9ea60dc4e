"""Builds small but real decoders in two exporters' idioms: a cache grown by Concat, one written in place."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from .blocks import Tiny, arange, decoder, embed, lm_head, rotary, rotary_table
from .writer import BOOL, FLOAT, INT32, INT64, Writer

CLOUD = "com.qualcomm.cloud"
NORM_DOMAIN = "com.qti.aisw.onnx"
NO_INDEX = np.iinfo(np.int32).max  # "reads nothing" on the accelerator; onnxruntime refuses it
TOTAL = "past_sequence_length + sequence_length"
TEXTS = (  # of token ids, for the command `demo`
    (5, 17, 96, 3, 41, 80, 22, 9, 64, 118, 7, 33),
    (101, 2, 77, 54, 12, 29, 90, 61, 8, 115, 46, 70),
)


def append_decoder(config: Tiny | None = None, seed: int = 0) -> ir.Model:
    """A decoder whose caches grow by Concat, as optimum's TorchScript export: no value infos, constants as nodes."""
    config = config or Tiny()
    w = Writer(opset=18, seed=seed)
    ids = w.input("input_ids", INT64, ["batch_size", "sequence_length"])
    mask = w.input("attention_mask", INT64, ["batch_size", TOTAL])
    positions = w.input("position_ids", INT64, ["batch_size", "sequence_length"])
    shape = ["batch_size", config.kv_heads, "past_sequence_length", config.head]
    slots = [(layer, kind) for layer in range(config.layers) for kind in ("key", "value")]
    past = {slot: w.input("past_key_values.{}.{}".format(*slot), FLOAT, shape) for slot in slots}
    present: dict[tuple[int, str], ir.Value] = {}

    def cache(layer: int, key: ir.Value, value: ir.Value) -> tuple[ir.Value, ir.Value]:
        for kind, new in (("key", key), ("value", value)):
            present[layer, kind] = w.op("Concat", past[layer, kind], new, axis=-2)
        return present[layer, "key"], present[layer, "value"]

    with w.scope("model"):
        x = embed(w, ids, config)
        allowed = append_mask(w, mask, x, past[0, "key"])
        angles = rotary(w, positions, config.head)
    x = decoder(w, x, angles, cache=cache, mask=lambda scores, keys: add_mask(w, scores, keys, allowed), config=config)
    w.output("logits", lm_head(w, x, config), ["batch_size", "sequence_length", config.vocab])
    for (layer, kind), value in present.items():
        w.output(f"present.{layer}.{kind}", value, ["batch_size", config.kv_heads, TOTAL, config.head])
    return w.model()


def append_mask(
    w: Writer, mask: ir.Value, x: ir.Value, past: ir.Value, *, axis: int = 2, window: int | None = None
) -> ir.Value:
    """BOOL ``[B,1,S,T]``: the query may see the key; from padding, the past's length, perhaps a window."""
    past_length, batch = w.size(past, axis), w.size(x, 0)
    total = w.op("Add", past_length, w.size(x, 1))
    query = w.unsqueeze(w.op("Range", w.op("Cast", past_length, to=INT64), w.op("Cast", total, to=INT64), 1), 0, 1, 3)
    key = w.unsqueeze(arange(w, total), 0, 1, 2)
    allowed = w.op("LessOrEqual", key, query)
    if window is not None:
        allowed = w.op("And", allowed, w.op("Greater", key, w.op("Sub", query, window)))
    seen = w.unsqueeze(w.op("Cast", mask, to=BOOL), 1, 2)
    length = w.size(w.op("Cast", mask, to=BOOL), 1)
    return w.op("Expand", w.op("And", allowed, seen), w.pack(batch, 1, w.op("Sub", total, past_length), length))


def add_mask(w: Writer, scores: ir.Value, keys: ir.Value, allowed: ir.Value) -> ir.Value:
    """Scores plus the smallest float wherever the key is not to be seen; the mask cut to the keys' length."""
    cut = w.op("Slice", allowed, [0], w.unsqueeze(w.size(keys, 2), 0), [3], [1])
    return w.op("Add", scores, w.op("Where", cut, 0.0, float(np.finfo(np.float32).min)))


def scatter_decoder(
    config: Tiny | None = None,
    seed: int = 0,
    *,
    batch_index: bool = False,
    no_index: int = NO_INDEX,
    window: int | None = None,
    compute_context: bool = False,
) -> ir.Model:
    """A decoder whose caches are written at ``position_ids`` by local functions, as QEfficient exports it.

    With ``batch_index`` the caches' rows are chosen by an input (continuous batching); a position of -1 is padding;
    ``no_index`` is what the reads use for "nothing here". With ``compute_context`` the length of an input bounds the
    rows that are read. The logits are those of each row's last token.
    """
    config = config or Tiny()
    w = Writer(opset=17, seed=seed)
    ids = w.input("input_ids", INT64, ["batch_size", "seq_len"])
    positions = w.input("position_ids", INT64, ["batch_size", "seq_len"])
    rows = "full_batch_size" if batch_index else "batch_size"
    shape = [rows, config.kv_heads, "ctx_len", config.head]
    slots = [(layer, kind) for layer in range(config.layers) for kind in ("key", "value")]
    past = {(layer, kind): w.input(f"past_{kind}.{layer}", FLOAT, shape) for layer, kind in slots}
    selector = [w.input("batch_index", INT64, ["batch_size", 1])] if batch_index else []
    context = w.input("comp_ctx_lengths", INT64, ["comp_ctx_lengths"]) if compute_context else None
    add_cache_functions(w, batch_index)
    retained: dict[tuple[int, str], ir.Value] = {}

    def cache(layer: int, key: ir.Value, value: ir.Value) -> tuple[ir.Value, ir.Value]:
        for kind, new in (("key", key), ("value", value)):
            retained[layer, kind] = ctx_scatter(w, past[layer, kind], selector, positions, new)
        keys, values = retained[layer, "key"], retained[layer, "value"]
        length = w.size(keys, 2) if context is None else w.size(context, 0)
        return ctx_read(w, keys, values, selector, positions, length=length, no_index=no_index)

    with w.scope("model"):
        x = embed(w, ids, config)
        masked = position_mask(w, past[0, "key"], positions, window)
        if context is not None:
            masked = w.op("Slice", masked, [0], w.unsqueeze(w.size(context, 0), 0), [3], [1])
        angles = rotary_table(w, positions, config.head)
    fill = functools.partial(fill_mask, w, masked)
    x = decoder(w, x, angles, cache=cache, mask=fill, config=config, norm=custom_norm)
    logits = lm_head(w, last_token(w, x, positions), config)
    w.output("logits", w.op("Cast", logits, to=FLOAT), ["Castlogits_dim_0", "Castlogits_dim_1", config.vocab])
    for (layer, kind), value in retained.items():
        w.output(f"past_{kind}.{layer}_RetainedState", value, shape)
    return w.model()


def ctx_scatter(w: Writer, data: ir.Value, selector: list[ir.Value], positions: ir.Value, new: ir.Value) -> ir.Value:
    """Writes new rows ``[B,H,S,D]`` at their positions."""
    if not selector:
        return w.op("CtxScatter", data, positions, new, domain=CLOUD)
    dropped = w.op("Where", w.op("Less", positions, 0), NO_INDEX, positions)  # pads are written nowhere
    return w.op("CtxScatterCB", data, *selector, dropped, new, domain=CLOUD)


def ctx_read(
    w: Writer,
    keys: ir.Value,
    values: ir.Value,
    selector: list[ir.Value],
    positions: ir.Value,
    *,
    length: ir.Value,
    no_index: int,
) -> tuple[ir.Value, ir.Value]:
    """Reads rows 0 … length-1 back; rows beyond the last position are "no index" and their values are zeroed."""
    length = w.op("Cast", length, to=INT64)
    rows = w.unsqueeze(w.op("Range", 0, length, 1), 0, 1)
    last = w.op("Cast", w.op("Cast", w.unsqueeze(w.reduce("ReduceMax", positions, 1), 1), to=INT32), to=INT64)
    beyond = w.op("Greater", rows, last)
    rows = w.op("Where", beyond, no_index, rows)
    name = "CtxGatherCB" if selector else "CtxGather"
    read_keys, read_values = (w.op(name, data, *selector, rows, length, domain=CLOUD) for data in (keys, values))
    zero = w.op("ConstantOfShape", w.op("Shape", read_values), value=ir.tensor(np.zeros(1, np.float32)))
    return read_keys, w.op("Where", w.unsqueeze(beyond, -1), zero, read_values)


def position_mask(
    w: Writer, past: ir.Value, positions: ir.Value, window: int | None = None, *, axis: int = 2
) -> ir.Value:
    """BOOL ``[B,1,S,ctx]``, true where the slot comes after the query's position (or leaves the window before it)."""
    slots = w.op("Reshape", arange(w, w.size(past, axis)), [1, 1, -1])
    query = w.op("Unsqueeze", positions, [-1])
    masked = w.op("Greater", slots, query)
    if window is not None:
        masked = w.op("Or", masked, w.op("LessOrEqual", slots, w.op("Sub", query, window)))
    return w.unsqueeze(masked, 1)


def fill_mask(w: Writer, masked: ir.Value, scores: ir.Value, keys: ir.Value) -> ir.Value:
    """Scores with -inf where masked."""
    fill = w.op("ConstantOfShape", w.op("Shape", scores), value=ir.tensor(np.full(1, -np.inf, np.float32)))
    return w.op("Where", masked, fill, scores)


def last_token(w: Writer, x: ir.Value, positions: ir.Value) -> ir.Value:
    """The hidden state ``[B,1,hidden]`` at each row's largest position."""
    last = w.op("ArgMax", w.op("Cast", positions, to=INT32), axis=1, keepdims=1)
    rows = w.op("Reshape", arange(w, w.size(positions, 0)), [-1, 1])
    width = w.op("Gather", w.op("Shape", x), [2], axis=0)
    flat = w.op("Add", last, w.op("Mul", rows, w.op("Gather", w.op("Shape", x), [1], axis=0)))
    rows_of_x = w.op("Gather", w.op("Flatten", x, axis=2), flat, axis=0)
    picked = w.op("Reshape", rows_of_x, w.op("Concat", [-1], width, axis=0))
    return w.op("Reshape", picked, w.op("Concat", w.op("Shape", flat), width, axis=0))


def custom_norm(w: Writer, x: ir.Value, name: str, width: int) -> ir.Value:
    """RMS norm as one call of a local function."""
    if not any(function.name == "CustomRMSNorm" for function in w.functions):
        body = Writer(opset=w.opset)
        hidden, scale = ir.Value(name="hidden_states"), ir.Value(name="weight")
        mean = body.reduce("ReduceMean", body.op("Pow", hidden, 2.0), -1)
        inverse = body.op("Reciprocal", body.op("Sqrt", body.op("Add", mean, 1e-6)))
        result = body.op("Mul", scale, body.op("Mul", hidden, inverse))
        w.function(NORM_DOMAIN, "CustomRMSNorm", body, [hidden, scale], result)
    weight = w.weights.get(name) or w.initializer(name, np.ones(width, np.float32))
    return w.op("CustomRMSNorm", x, weight, domain=NORM_DOMAIN)


def add_cache_functions(w: Writer, batch_index: bool) -> None:
    """Adds the functions that write and read a cache ``[rows,H,ctx,D]`` by positions."""
    for build in (_scatter_function, _gather_function):
        body = Writer(opset=w.opset)
        name, inputs, result = build(body, batch_index)
        w.function(CLOUD, name, body, inputs, result)


def _scatter_function(b: Writer, batch_index: bool) -> tuple[str, list[ir.Value], ir.Value]:
    data, chosen, positions, updates = (ir.Value(name=n) for n in ("data", "batch_index", "position_ids", "updates"))
    heads, length = (b.op("Gather", b.op("Shape", x), [1]) for x in (data, positions))
    batch = b.op("Gather", b.op("Shape", positions), [0])
    shape = b.op("Concat", batch, heads, length, [1], axis=0)
    rows = chosen if batch_index else b.op("Range", [0], batch, [1])
    row_axes = [2, 3] if batch_index else [1, 2, 3]
    parts = [
        b.op("Expand", b.op("Unsqueeze", rows, row_axes), shape),
        b.op("Expand", b.op("Unsqueeze", b.op("Range", [0], heads, [1]), [0, 2, 3]), shape),
        b.op("Expand", b.op("Unsqueeze", positions, [1, 3]), shape),
    ]
    result = b.op("ScatterND", data, b.op("Concat", *parts, axis=3), updates)
    inputs = [data, chosen, positions, updates] if batch_index else [data, positions, updates]
    return ("CtxScatterCB" if batch_index else "CtxScatter"), inputs, result


def _gather_function(b: Writer, batch_index: bool) -> tuple[str, list[ir.Value], ir.Value]:
    data, chosen, slots, length = (ir.Value(name=n) for n in ("data", "batch_index", "ctx_indices", "comp_ctx_len"))
    heads = b.op("Gather", b.op("Shape", data), [1])
    if not batch_index:
        batch = b.op("Gather", b.op("Shape", data), [0])
        shape = b.op("Concat", batch, heads, b.op("Reshape", length, [1]), axis=0)
        index = b.op("Unsqueeze", b.op("Expand", slots, shape), [-1])
        return "CtxGather", [data, slots, length], b.op("GatherND", data, index, batch_dims=2)
    batch = b.op("Gather", b.op("Shape", chosen), [0])
    shape = b.op("Concat", batch, heads, b.op("Gather", b.op("Shape", slots), [2]), [1], axis=0)
    parts = [
        b.op("Expand", b.op("Unsqueeze", chosen, [2, 3]), shape),
        b.op("Expand", b.op("Unsqueeze", b.op("Range", [0], heads, [1]), [0, 2, 3]), shape),
        b.op("Expand", b.op("Unsqueeze", slots, [3]), shape),
    ]
    result = b.op("GatherND", data, b.op("Concat", *parts, axis=3))
    return "CtxGatherCB", [data, chosen, slots, length], result


SAMPLES: dict[str, Callable[[], ir.Model]] = {
    "append": append_decoder,
    "scatter": scatter_decoder,
}
