"""Small graphs whose cache grows by Concat, one for each way exporters spell it, and those that must be refused."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from onnx_llm_passes.runtime.samples.blocks import Tiny, arange, decoder, embed, lm_head, rotary
from onnx_llm_passes.runtime.samples.samples import add_mask, append_mask
from onnx_llm_passes.runtime.samples.writer import FLOAT, INT64, Writer

ONE = Tiny(layers=1)
TOTAL = "past + seq"
Pair = tuple[ir.Value, ir.Value]


def finish(w: Writer, x: ir.Value, config: Tiny, shape: Sequence[int | str]) -> None:
    """Logits as the first output; what follows are the states."""
    logits = lm_head(w, x, config)
    w.output("logits", logits, [*shape, config.vocab])


def append_graph(
    update: Callable[[Writer, str, ir.Value], Pair],
    config: Tiny = ONE,
    *,
    past: Callable[[Writer, str], ir.Value],
    past_axis: int,
    shapes: dict[str, list[int | str]],
    opset: int = 18,
) -> ir.Model:
    """A one-layer decoder whose caches grow: ``update`` takes the writer, "key" or "value", and new rows ``[B,H,S,D]``.

    It returns what attention reads ``[B,H,T,D]`` and what leaves the graph; ``shapes`` are the outputs' shapes.
    """
    w = Writer(opset=opset)
    ids = w.input("input_ids", INT64, ["batch", "seq"])
    mask = w.input("attention_mask", INT64, ["batch", TOTAL])
    positions = w.input("position_ids", INT64, ["batch", "seq"])
    first = past(w, "key")
    past(w, "value")
    leaving: dict[str, ir.Value] = {}

    def cache(layer: int, key: ir.Value, value: ir.Value) -> Pair:
        read: list[ir.Value] = []
        for kind, new in (("key", key), ("value", value)):
            rows, leaving[kind] = update(w, kind, new)
            read.append(rows)
        return read[0], read[1]

    x = embed(w, ids, config)
    allowed = append_mask(w, mask, x, first, axis=past_axis)
    masked = functools.partial(_masked, w, allowed)
    x = decoder(w, x, rotary(w, positions, config.head), cache=cache, mask=masked, config=config)
    finish(w, x, config, ["batch", "seq"])
    for kind, value in leaving.items():
        w.output(f"present.0.{kind}", value, shapes[kind])
    return w.model()


def _masked(w: Writer, allowed: ir.Value, scores: ir.Value, keys: ir.Value) -> ir.Value:
    return add_mask(w, scores, keys, allowed)


def _named(w: Writer, name: str) -> ir.Value:
    return next(value for value in w.inputs if value.name == name)


def append_other_axes() -> ir.Model:
    """Keys kept transposed ``[B,H,D,T]`` (they grow on axis 3), values as ``[T,B,H,D]`` through Transpose and Cast."""
    c = ONE
    shapes: dict[str, list[int | str]] = {
        "key": ["batch", c.kv_heads, c.head, "past"],
        "value": ["past", "batch", c.kv_heads, c.head],
    }

    def past(w: Writer, kind: str) -> ir.Value:
        return w.input(f"past_key_values.0.{kind}", FLOAT, shapes[kind])

    def update(w: Writer, kind: str, new: ir.Value) -> Pair:
        old = _named(w, f"past_key_values.0.{kind}")
        if kind == "key":
            grown = w.op("Concat", old, w.op("Transpose", new, perm=[0, 1, 3, 2]), axis=3)
            return w.op("Transpose", grown, perm=[0, 1, 3, 2]), grown
        rows = w.op("Cast", w.op("Transpose", old, perm=[1, 2, 0, 3]), to=FLOAT)
        grown = w.op("Concat", rows, new, axis=2)
        return grown, w.op("Transpose", grown, perm=[2, 0, 1, 3])

    outputs = {kind: [TOTAL if dim == "past" else dim for dim in shape] for kind, shape in shapes.items()}
    return append_graph(update, past=past, past_axis=3, shapes=outputs)


def append_three_dims() -> ir.Model:
    """Caches of rank 3, ``[B,T,H·D]``, growing on axis 1; heads are split after the Concat."""
    c = ONE
    width = c.kv_heads * c.head

    def past(w: Writer, kind: str) -> ir.Value:
        return w.input(f"past_key_values.0.{kind}", FLOAT, ["batch", "past", width])

    def update(w: Writer, kind: str, new: ir.Value) -> Pair:
        flat = w.op("Reshape", w.op("Transpose", new, perm=[0, 2, 1, 3]), [0, 0, width])
        grown = w.op("Concat", _named(w, f"past_key_values.0.{kind}"), flat, axis=1)
        heads = w.op("Reshape", grown, [0, 0, c.kv_heads, c.head])
        return w.op("Transpose", heads, perm=[0, 2, 1, 3]), grown

    shapes: dict[str, list[int | str]] = {kind: ["batch", TOTAL, width] for kind in ("key", "value")}
    return append_graph(update, past=past, past_axis=1, shapes=shapes)


def append_plain(
    window: int | None = None, *, whole_mask: bool = False, embedding: Callable[..., ir.Value] = embed
) -> ir.Model:
    """The plain growing cache, in one layer; with ``window``, a mask term hides keys that far back.

    With ``whole_mask`` the host gives what is added to the scores, whose dimensions nothing relates to the caches'.
    """
    c = ONE
    w = Writer(opset=18)
    ids = w.input("input_ids", INT64, ["batch", "seq"])
    if whole_mask:
        mask = w.input("attention_mask", FLOAT, ["batch", 1, "queries", "keys"])
    else:
        mask = w.input("attention_mask", INT64, ["batch", TOTAL])
    positions = w.input("position_ids", INT64, ["batch", "seq"])
    shape: list[int | str] = ["batch", c.kv_heads, "past", c.head]
    past = {kind: w.input(f"past_key_values.0.{kind}", FLOAT, shape) for kind in ("key", "value")}
    grown: dict[str, ir.Value] = {}

    def cache(layer: int, key: ir.Value, value: ir.Value) -> Pair:
        grown.update({k: w.op("Concat", past[k], new, axis=-2) for k, new in (("key", key), ("value", value))})
        return grown["key"], grown["value"]

    x = embedding(w, ids, c)
    masked: Callable[[ir.Value, ir.Value], ir.Value]
    if whole_mask:
        masked = functools.partial(_added, w, mask)
    else:
        masked = functools.partial(_masked, w, append_mask(w, mask, x, past["key"], window=window))
    finish(w, decoder(w, x, rotary(w, positions, c.head), cache=cache, mask=masked, config=c), c, ["batch", "seq"])
    for kind, value in grown.items():
        w.output(f"present.0.{kind}", value, ["batch", c.kv_heads, TOTAL, c.head])
    return w.model()


def _added(w: Writer, mask: ir.Value, scores: ir.Value, keys: ir.Value) -> ir.Value:
    return w.op("Add", scores, mask)


def append_by_data() -> ir.Model:
    """Rows are taken in groups whose sizes the tokens decide, as experts take them: only the file tells their sum."""
    return append_plain(embedding=_grouped)


def _grouped(w: Writer, ids: ir.Value, c: Tiny) -> ir.Value:
    x = embed(w, ids, c)
    flat = w.op("Reshape", x, [-1, c.hidden])
    chosen = w.op("Cast", w.op("Greater", w.op("Reshape", ids, [-1]), 9), to=INT64)
    count = w.op("ReduceSum", chosen, [0], keepdims=0)
    groups = [
        w.op("Gather", flat, w.op("Range", first, last, 1), axis=0)
        for first, last in ((w.constant(0), count), (count, w.size(flat, 0)))
    ]
    rows = w.op("Concat", *groups, axis=0)
    rows.type, rows.shape = ir.TensorType(FLOAT), ir.Shape(["batch*seq", c.hidden])
    return w.op("Reshape", rows, w.op("Shape", x))


def append_cut() -> ir.Model:
    """The plain growing cache, of which the rows behind the past are cut out again and leave the graph."""
    model = append_plain()
    past = next(v for v in model.graph.inputs if v.name == "past_key_values.0.key")
    for index, grown in enumerate(model.graph.outputs[1:], 1):
        name, width = grown.name or "", (grown.shape or ())[-1]
        length = ir.node("Shape", [past], {"start": 2, "end": 3})
        bounds = [_number(model, number) for number in (2**63 - 1, 2)]
        cut = ir.node("Slice", [grown, length.outputs[0], *bounds], name=f"{name}/cut")
        grown.name, cut.outputs[0].name = f"{name}/whole", name
        cut.outputs[0].type, cut.outputs[0].shape = grown.type, ir.Shape(["batch", ONE.kv_heads, "seq", width])
        model.graph.extend([length, cut])
        model.graph.outputs[index] = cut.outputs[0]
    return model


def _number(model: ir.Model, number: int) -> ir.Value:
    value = ir.Value(name=f"number_{number}", const_value=ir.tensor([number], name=f"number_{number}"))
    value.dtype, value.shape = ir.DataType.INT64, ir.Shape([1])
    return model.graph.initializers.setdefault(value.name or "", value)


def append_dynamo() -> ir.Model:
    """The plain growing cache as torch.export writes it: symbols s0, s1 …, constant initializers, value infos."""
    model = append_plain()
    symbols = {"batch": "s10", "seq": "s70", "past": "s15", TOTAL: "s15 + s70"}
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape(
            [symbols.get(str(dim), dim) if not isinstance(dim, int) else dim for dim in value.shape or ()]
        )
    mask = next(value for value in model.graph.inputs if value.name == "attention_mask")
    mask.shape = ir.Shape(["s43", "s53"])  # torch.export loses the relation
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return common.ShapeInferencePass(data_prop=True)(model).model


def no_states() -> ir.Model:
    """A decoder without a cache: nothing to strip."""
    c = ONE
    w = Writer(opset=18)
    ids = w.input("input_ids", INT64, ["batch", "seq"])
    mask = w.input("attention_mask", INT64, ["batch", "seq"])
    positions = w.input("position_ids", INT64, ["batch", "seq"])
    x = embed(w, ids, c)
    past = w.op("Unsqueeze", w.op("Slice", x, [0], [0], [1]), [1])  # [B,1,0,hidden]: a past of length 0
    masked = functools.partial(_masked, w, append_mask(w, mask, x, past))
    x = decoder(w, x, rotary(w, positions, c.head), cache=lambda _, k, v: (k, v), mask=masked, config=c)
    finish(w, x, c, ["batch", "seq"])
    return w.model()


def half_paired(side: str) -> ir.Model:
    """The plain growing cache with the key's output gone (``side="input"``), or its input (``side="output"``)."""
    model = append_plain()
    outputs = {value.name: value for value in model.graph.outputs}
    if side == "input":
        model.graph.outputs.remove(outputs["present.0.key"])
        return model
    grown = outputs["present.0.key"]
    concat, key = grown.producer(), next(v for v in model.graph.inputs if v.name == "past_key_values.0.key")
    assert concat is not None
    alone = ir.node("Identity", [concat.inputs[1]], name="new_rows")
    alone.outputs[0].name, alone.outputs[0].type, alone.outputs[0].shape = "present.0.key", grown.type, grown.shape
    key.replace_all_uses_with(next(v for v in model.graph.inputs if v.name == "past_key_values.0.value"))
    grown.replace_all_uses_with(alone.outputs[0], replace_graph_outputs=True)
    model.graph.insert_before(concat, alone)
    model.graph.remove(concat)
    model.graph.inputs.remove(key)
    model.graph.sort()
    return model


def baked_length() -> ir.Model:
    """A growing cache exported with every size fixed: past 8, three new tokens, a causal table as a constant."""
    c, batch, past_length, length = ONE, 2, 8, 3
    total = past_length + length
    w = Writer(opset=18)
    ids = w.input("input_ids", INT64, [batch, length])
    positions = w.input("position_ids", INT64, [batch, length])
    shape = [batch, c.kv_heads, past_length, c.head]
    past = {kind: w.input(f"past_key_values.0.{kind}", FLOAT, shape) for kind in ("key", "value")}
    grown: dict[str, ir.Value] = {}

    def cache(layer: int, key: ir.Value, value: ir.Value) -> Pair:
        grown.update({k: w.op("Concat", past[k], new, axis=2) for k, new in (("key", key), ("value", value))})
        return grown["key"], grown["value"]

    table = np.tril(np.ones((length, total), bool), k=past_length)[None, None]
    fixed = functools.partial(_table_mask, w, w.initializer("causal", table))
    x = decoder(w, embed(w, ids, c), rotary(w, positions, c.head), cache=cache, mask=fixed, config=c)
    finish(w, x, c, [batch, length])
    for kind, value in grown.items():
        w.output(f"present.0.{kind}", value, [batch, c.kv_heads, total, c.head])
    return w.model()


def _table_mask(w: Writer, table: ir.Value, scores: ir.Value, keys: ir.Value) -> ir.Value:
    return w.op("Where", table, scores, float(np.finfo(np.float32).min))


def one_token(window: int | None = None) -> ir.Model:
    """A decode graph whose length of 1 is baked into a Reshape; the past is free and no mask is needed.

    With ``window``, rows so far behind the past's length, which is the one query's position, are masked.
    """
    c = ONE
    w = Writer(opset=18)
    ids = w.input("input_ids", INT64, ["batch", 1])
    positions = w.input("position_ids", INT64, ["batch", 1])
    past = {
        k: w.input(f"past_key_values.0.{k}", FLOAT, ["batch", c.kv_heads, "past", c.head]) for k in ("key", "value")
    }
    grown: dict[str, ir.Value] = {}

    def cache(layer: int, key: ir.Value, value: ir.Value) -> Pair:
        for kind, new in (("key", key), ("value", value)):
            row = w.op("Reshape", new, [-1, c.kv_heads, 1, c.head])
            grown[kind] = w.op("Concat", past[kind], row, axis=2)
        return grown["key"], grown["value"]

    def mask(scores: ir.Value, keys: ir.Value) -> ir.Value:
        if window is None:
            return scores
        length = w.size(past["key"], 2)
        rows = arange(w, w.op("Add", length, w.size(ids, 1)))
        seen = w.op("And", w.op("Greater", rows, w.op("Sub", length, window)), w.op("LessOrEqual", rows, length))
        return w.op("Where", w.unsqueeze(seen, 0, 0, 0), scores, float(np.finfo(np.float32).min))

    x = embed(w, ids, c)
    x = decoder(w, x, rotary(w, positions, c.head), cache=cache, mask=mask, config=c)
    finish(w, x, c, ["batch", 1])
    for kind, value in grown.items():
        w.output(f"present.0.{kind}", value, ["batch", c.kv_heads, "past + 1", c.head])
    return w.model()
