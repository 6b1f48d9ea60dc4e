"""Recurrences of hybrid models: short causal convolutions and linear attention with the state they carry."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .emitter import FLOAT, INT64, Emitter, Unfit
from .ports import Ports


def causal_conv(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """CausalConvWithState (com.microsoft, ai.onnx 27): a depthwise convolution over the state and the input.

    ``[B, C, L]`` channels first; the state ``[B, C, (K - 1) · dilation]`` is what stood before.
    """
    ports = Ports(node)
    for name in ("state_window", "channels_last", "state_update_capacity", "state_length", "input_channels"):
        if ports.int(name):
            raise Unfit(f"{name} is {ports.int(name)}")
    if ports.int("ndim", 1) != 1:
        raise Unfit(f"it convolves {ports.int('ndim')} axes")
    x, weight, bias, past = ports.need(0, "input"), ports.need(1, "weight"), ports.input(2), ports.input(3)
    taps, dilation = e.width(weight, 2, "the kernel's width"), ports.int("dilation", 1)
    channels = e.width(weight, 0, "the number of channels")
    kept = (taps - 1) * dilation
    before = past if past is not None else _zeros(e, x, channels, kept)
    whole = e("Concat", before, x, axis=2) if kept else x
    operands = [whole, weight] if bias is None else [whole, weight, bias]
    output = e("Conv", *operands, group=channels, dilations=[dilation], kernel_shape=[taps])
    activation = ports.text("activation", "none")
    if activation in ("silu", "swish"):
        output = e("Mul", output, e("Sigmoid", output))
    elif activation not in ("none", ""):
        raise Unfit(f"its activation is {activation}")
    present = e("Slice", whole, [-kept], [np.iinfo(np.int64).max], [2], [1]) if kept else before
    return [output, present]


def _zeros(e: Emitter, x: ir.Value, channels: int, rows: int) -> ir.Value:
    shape = e("Concat", e.sizes(x, 0), [channels, rows], axis=0)
    return e("Expand", e.array(np.zeros((1, 1, 1)), e.dtype(x)), shape)


def linear_attention(e: Emitter, node: ir.Node) -> list[ir.Value | None]:
    """LinearAttention (com.microsoft, ai.onnx 27): the recurrence token by token, in a Scan over the sequence.

    ``S ← exp(g) · S + k ⊗ (β · (v - Sᵀk))``, without decay or without delta as ``update_rule`` says; then ``o = Sᵀq``.
    """
    ports = Ports(node)
    if ports.int("state_window"):
        raise Unfit(f"state_window is {ports.int('state_window')}")
    rule = ports.text("update_rule", "gated_delta")
    heads, kv = ports.int("q_num_heads"), ports.int("kv_num_heads")
    query, key, value = (ports.need(i, name) for i, name in enumerate(("query", "key", "value")))
    width = e.width(query, -1, "the width of the queries") // heads
    size = e.width(value, -1, "the width of the values") // kv
    scale = ports.float("scale") or width**-0.5
    steps = [_tokens_first(e, query, heads, width), _tokens_first(e, key, kv, width), _tokens_first(e, value, kv, size)]
    steps[0] = e("Mul", steps[0], scale)
    if e.width(key, -1, "the width of the keys") // width != kv:
        raise Unfit("keys and values have different numbers of heads")
    decay = beta = None
    if "gated" in rule:
        decay = _gate(e, ports.need(4, "decay"), kv, width)
        steps.append(decay)
    if "delta" in rule:
        beta = _beta(e, ports.need(5, "beta"), kv)
        steps.append(beta)
    state = _state(e, ports.input(3), query, (kv, width, size))
    last, outputs = _scan(e, state, steps, rule, heads, kv)
    flat = e("Reshape", e("Transpose", outputs, perm=[1, 0, 2, 3]), [0, 0, max(heads, kv) * size])
    return [e.as_type(flat, e.dtype(query)), e.as_type(last, _state_type(e, ports, query))]


def _state_type(e: Emitter, ports: Ports, query: ir.Value) -> ir.DataType:
    past = ports.input(3)
    return e.dtype(past if past is not None else query)


def _tokens_first(e: Emitter, x: ir.Value, heads: int, size: int) -> ir.Value:
    """``[B, T, H·D]`` to float32 ``[T, B, H, D]``."""
    return e.as_type(e("Transpose", e("Reshape", x, [0, 0, heads, size]), perm=[1, 0, 2, 3]), FLOAT)


def _gate(e: Emitter, decay: ir.Value, kv: int, width: int) -> ir.Value:
    """``exp(g)`` as ``[T, B, H, D or 1]``."""
    per_key = e.width(decay, -1, "the width of the decay") == kv * width and width > 1
    return e("Exp", _tokens_first(e, decay, kv, width if per_key else 1))


def _beta(e: Emitter, beta: ir.Value, kv: int) -> ir.Value:
    heads = kv if e.width(beta, -1, "the width of beta") == kv else 1
    return _tokens_first(e, beta, heads, 1)


def _state(e: Emitter, past: ir.Value | None, query: ir.Value, dims: tuple[int, int, int]) -> ir.Value:
    if past is not None:
        return e.as_type(past, FLOAT)
    shape = e("Concat", e.sizes(query, 0), list(dims), axis=0)
    return e("Expand", e.array(np.zeros((1, 1, 1, 1)), FLOAT), shape)


def _scan(
    e: Emitter, state: ir.Value, steps: list[ir.Value], rule: str, heads: int, kv: int
) -> tuple[ir.Value, ir.Value]:
    """The state after the last token, and the outputs ``[T, B, H, D]``."""
    body, inputs = _body(e, rule, heads, kv)
    given = {"body": body, "num_scan_inputs": len(inputs) - 1}
    last, outputs = e.ops("Scan", [state, *steps], f"{e.place}/Scan", 2, given)
    last.type = outputs.type = ir.TensorType(FLOAT)
    return last, outputs


def _body(e: Emitter, rule: str, heads: int, kv: int) -> tuple[ir.Graph, list[ir.Value]]:
    names = ["state", "q", "k", "v", *(["decay"] if "gated" in rule else []), *(["beta"] if "delta" in rule else [])]
    inputs = [ir.Value(name=e.fresh(f"{e.place}/{name}"), type=ir.TensorType(FLOAT)) for name in names]
    graph = ir.Graph(inputs, [], nodes=[], name=e.fresh(f"{e.place}/token"), opset_imports={"": e.opset})
    b = e.inside(graph)
    given = dict(zip(names, inputs, strict=True))
    state = given["state"]
    if "decay" in given:
        state = b("Mul", state, b("Unsqueeze", given["decay"], [-1]))  # [B, KV, D, E] by [B, KV, D or 1, 1]
    update = given["v"]
    key = b("Unsqueeze", given["k"], [-1])
    if "beta" in given:
        held = b("Squeeze", b("MatMul", b("Unsqueeze", given["k"], [-2]), state), [-2])
        update = b("Mul", b("Sub", update, held), given["beta"])
    after = b("Add", state, b("Mul", key, b("Unsqueeze", update, [-2])))
    output = _read_state(b, given["q"], after, heads, kv)
    left = b("Identity", after)
    graph.extend(b.recorded())
    graph.outputs.extend([left, output])
    return graph, inputs


def _read_state(b: Emitter, query: ir.Value, state: ir.Value, heads: int, kv: int) -> ir.Value:
    """``Sᵀq`` ``[B, H, E]``; the state serves ``heads / kv`` queries each, or the query several states."""
    if heads >= kv:
        grouped = b("Reshape", query, [0, kv, heads // kv, -1])
        product = b("MatMul", grouped, state)
        return b(
            "Reshape",
            product,
            b("Concat", b("Gather", b("Shape", query, dtype=INT64), [0], axis=0), [heads, -1], axis=0),
        )
    order = np.repeat(np.arange(heads), kv // heads)
    spread = b("Gather", query, b.array(order, INT64), axis=1)
    return b("Squeeze", b("MatMul", b("Unsqueeze", spread, [-2]), state), [-2])
