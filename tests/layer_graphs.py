"""Decoders for cutting layers out: sums hidden in fused norms, streams that go around layers, caches read by others."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

VOCABULARY, WIDTH, HEADS, CACHE_HEADS, HEAD = 32, 16, 4, 2, 8


def from_text(inputs: str, outputs: str, body: str, weights: dict[str, tuple[int, ...]], seed: int = 0) -> ir.Model:
    """A graph out of text, with seeded weights of these shapes."""
    random = np.random.default_rng(seed)
    declared = "".join(f", float[{','.join(map(str, shape))}] {name}" for name, shape in weights.items())
    model = ir.from_onnx_text(
        f'<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>\n'
        f"g ({inputs}{declared}) => ({outputs})\n"
        f"<int64[1] one = {{1}}, int64 zero = {{0}}, int64 at = {{1}}> {{\n{body}}}"
    )
    for value in [value for value in model.graph.inputs if value.name in weights]:
        model.graph.inputs.remove(value)
        array = (random.standard_normal(weights[value.name or ""]) / np.sqrt(WIDTH)).astype(np.float32)
        value.const_value = ir.tensor(array, name=value.name)
        model.graph.register_initializer(value)
    return model


def skip_norm_decoder(layers: int = 2, bias: str = "") -> ir.Model:
    """As onnxruntime-genai writes: each sum lies inside the norm after it, the last one's is no output at all."""
    weights: dict[str, tuple[int, ...]] = {"table": (VOCABULARY, WIDTH), "head": (WIDTH, VOCABULARY), "gamma": (WIDTH,)}
    inputs = "int64[B,S] input_ids, int64[B,T] attention_mask"
    outputs = f"float[B,S,{VOCABULARY}] logits"
    body = """x0 = Gather (table, input_ids)
       seen = ReduceSum <keepdims = 0> (attention_mask, one)
       last = Sub (seen, one)
       lengths = Cast <to = 6> (last)
       dims = Shape (attention_mask)
       width = Gather <axis = 0> (dims, at)
       total = Cast <to = 6> (width)
       [norm0] n0 = SimplifiedLayerNormalization <axis = -1, epsilon = 1e-06> (x0, gamma)
    """
    norm = "com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 1e-06>"
    for layer in range(layers):
        weights[f"qkv{layer}"] = (WIDTH, (HEADS + 2 * CACHE_HEADS) * HEAD)
        weights |= {f"out{layer}": (HEADS * HEAD, WIDTH), f"ffn{layer}": (WIDTH, WIDTH)}
        for kind in ("key", "value"):
            inputs += f", float[B,{CACHE_HEADS},P,{HEAD}] past_{kind}_{layer}"
            outputs += f", float[B,{CACHE_HEADS},T,{HEAD}] present_{kind}_{layer}"
        following = f"n{layer + 1}, , , x{layer + 1}" if layer + 1 < layers else f"n{layer + 1}"
        body += f"""[proj{layer}] q{layer} = MatMul (n{layer}, qkv{layer})
       [attend{layer}] m{layer}, present_key_{layer}, present_value_{layer} = com.microsoft.GroupQueryAttention
          <num_heads = {HEADS}, kv_num_heads = {CACHE_HEADS}>
          (q{layer}, , , past_key_{layer}, past_value_{layer}, lengths, total)
       o{layer} = MatMul (m{layer}, out{layer})
       [post{layer}] p{layer}, , , y{layer} = {norm} (x{layer}, o{layer}, gamma)
       f{layer} = MatMul (p{layer}, ffn{layer})
       [pre{layer + 1}] {following} = {norm} (y{layer}, f{layer}, gamma{bias})
    """
    return from_text(inputs, outputs, body + f"logits = MatMul (n{layers}, head)\n", weights)


def plain_decoder(
    second: str = "Identity (x1)",
    third: str = "Identity (x2)",
    extra: str = "",
    cache: str = "present_1",
    joined: str = "Add (y1, a1)",
) -> ir.Model:
    """Two layers of one head without norms; told: what the second takes, attends to and gives, what the head reads."""
    body = f"""x0 = Gather (table, input_ids)
       {extra}
       {_attention(0, "x0", "present_0")}
       x1 = Add (x0, a0)
       y1 = {second}
       {_attention(1, "y1", cache)}
       x2 = {joined}
       y2 = {third}
       logits = MatMul (y2, head)
    """
    weights = {"table": (VOCABULARY, WIDTH), "table2": (VOCABULARY, WIDTH), "head": (WIDTH, VOCABULARY)}
    weights |= {"wk0": (WIDTH, WIDTH), "wk1": (WIDTH, WIDTH)}
    past = [f"float[B,P,{WIDTH}] past_{layer}" for layer in range(2)]
    present = [f'float[B,"P + S",{WIDTH}] present_{layer}' for layer in range(2)]
    inputs = ", ".join(["int64[B,S] input_ids", "float[S,T] mask", *past])
    return from_text(inputs, ", ".join([f"float[B,S,{VOCABULARY}] logits", *present]), body, weights)


def _attention(layer: int, x: str, name: str) -> str:
    return f"""k{layer} = MatMul ({x}, wk{layer})
       present_{layer} = Concat <axis = 1> (past_{layer}, k{layer})
       t{layer} = Transpose <perm = [0, 2, 1]> ({name})
       s{layer} = MatMul ({x}, t{layer})
       h{layer} = Add (s{layer}, mask)
       w{layer} = Softmax <axis = -1> (h{layer})
       a{layer} = MatMul (w{layer}, {name})"""
