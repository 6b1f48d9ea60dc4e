"""Spells out norms inside GroupQueryAttention, which GPU kernels alone compute, in a copy for the CPU."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from ...ir.core.scopes import all_nodes
from ...ir.rewrite.builder import Builder

QUERY, KEY, VALUE, Q_NORM, K_NORM = 0, 1, 2, 14, 15  # inputs, as onnxruntime 1.32's schema numbers them
DEFAULT = 1e-6


def with_norms(nodes: Iterable[ir.Node]) -> list[ir.Node]:
    """The attentions whose queries and keys are normed inside."""
    return [node for node in nodes if node.op_type == "GroupQueryAttention" and _at(node, Q_NORM) is not None]


def spell_out_norms(model: ir.Model) -> int:
    """Puts each norm before its attention, in place; how many attentions had them.

    onnxruntime 1.32 refuses them on a CPU: "q_norm_weight / k_norm_weight … is not supported".
    """
    builder, found = Builder(model.graph, "legalize"), with_norms(all_nodes(model))
    for node in found:
        _spell_out(builder, node)
    return len(found)


def _spell_out(builder: Builder, node: ir.Node) -> None:
    heads, kv = (node.attributes[name].as_int() for name in ("num_heads", "kv_num_heads"))
    weight = _at(node, Q_NORM)
    assert weight is not None
    size = weight.shape[0] if weight.shape is not None else None
    query, key = _at(node, QUERY), _at(node, KEY)
    assert query is not None
    if key is None and isinstance(size, int):
        sizes = [count * size for count in (heads, kv, kv)]
        parts = builder.ops("Split", [query, builder.ints(sizes, "sizes")], f"{node.name}/parts", 3, {"axis": 2})
        for port, part in enumerate(parts):
            node.replace_input_with(port, part)
    for port, norm, count, own in (
        (QUERY, Q_NORM, heads, "q_norm_epsilon"),
        (KEY, K_NORM, kv, "k_norm_epsilon"),
    ):
        value, scale = _at(node, port), _at(node, norm)
        if value is None or scale is None:
            continue
        attribute = node.attributes.get(own) or node.attributes.get("qk_norm_epsilon")
        epsilon = attribute.as_float() if attribute is not None else DEFAULT
        node.replace_input_with(port, _normed(builder, node, value, scale, count, epsilon))
        node.replace_input_with(norm, None)
    builder.place_before(node)


def _normed(builder: Builder, node: ir.Node, value: ir.Value, scale: ir.Value, heads: int, epsilon: float) -> ir.Value:
    name = f"{node.name}/norm"
    wide = builder.op("Reshape", [value, builder.ints([0, 0, heads, -1], "heads")], name, dtype=value.dtype)
    given = {"axis": -1, "epsilon": epsilon, "stash_type": 1}
    normed = builder.op("SimplifiedLayerNormalization", [wide, scale], name, given, dtype=value.dtype)
    return builder.op("Reshape", [normed, builder.ints([0, 0, -1], "flat")], name, dtype=value.dtype)


def _at(node: ir.Node, port: int) -> ir.Value | None:
    return node.inputs[port] if port < len(node.inputs) else None
