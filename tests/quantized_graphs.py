"""Graphs of the layouts that the shared builders lack: new rows alone leave, and a cache inside one operator."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_llm_passes.runtime.samples.samples import append_decoder

VOCABULARY, WIDTH, HEADS, CACHE_HEADS, HEAD = 128, 32, 4, 2, 8


def delta_decoder() -> ir.Model:
    """The growing sample, but only what a run appends leaves the graph: the host keeps the cache."""
    model = append_decoder()
    outputs = model.graph.outputs
    for index, value in enumerate(list(outputs)):
        node = value.producer()
        if node is None or node.op_type != "Concat":
            continue
        new = node.inputs[1]
        name, value.name = value.name, f"{value.name}_whole"
        new.name, new.type = name, value.type
        new.shape = ir.Shape(["batch_size", CACHE_HEADS, "sequence_length", HEAD])
        outputs[index] = new
    return model


def fused_decoder(seed: int = 0) -> ir.Model:
    """One layer whose cache lives in GroupQueryAttention, the queries, keys and values in one tensor."""
    random = np.random.default_rng(seed)
    text = """<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
    g (int64[B,S] input_ids, int64[B,T] attention_mask, float[B,2,P,8] past_key, float[B,2,P,8] past_value)
      => (float[B,S,128] logits, float[B,2,T,8] present_key, float[B,2,T,8] present_value)
    <int64[1] one = {1}, int64 zero = {0}, int64 at = {1}> {
       x = Gather (table, input_ids)
       qkv = MatMul (x, w_qkv)
       seen = ReduceSum <keepdims = 0> (attention_mask, one)
       last = Sub (seen, one)
       lengths = Cast <to = 6> (last)
       dims = Shape (attention_mask)
       width = Gather <axis = 0> (dims, at)
       total = Cast <to = 6> (width)
       [attend] mixed, present_key, present_value = com.microsoft.GroupQueryAttention
          <num_heads = 4, kv_num_heads = 2> (qkv, , , past_key, past_value, lengths, total)
       y = MatMul (mixed, w_out)
       z = Add (x, y)
       logits = MatMul (z, w_head)
    }"""
    shapes = {
        "table": (VOCABULARY, WIDTH),
        "w_qkv": (WIDTH, (HEADS + 2 * CACHE_HEADS) * HEAD),
        "w_out": (HEADS * HEAD, WIDTH),
        "w_head": (WIDTH, VOCABULARY),
    }
    declared = "".join(f", float[{a},{b}] {name}" for name, (a, b) in shapes.items())
    model = ir.from_onnx_text(text.replace("int64[B,T] attention_mask", f"int64[B,T] attention_mask{declared}"))
    for value in [value for value in model.graph.inputs if value.name in shapes]:
        model.graph.inputs.remove(value)
        array = (random.standard_normal(shapes[value.name]) / np.sqrt(WIDTH)).astype(np.float32)
        value.const_value = ir.tensor(array, name=value.name)
        model.graph.register_initializer(value)
    return model
