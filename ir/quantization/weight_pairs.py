"""Weight-only pairs of a quantized graph are matched to the float weights that stand at their places."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..core.constants import constant_of
from ..core.encoding import Encoding, EncodingTable
from .qdq import plain_name, quantized


@dataclass(frozen=True)
class Matched:
    """A pair's own name, the float weight at its place, and how many integers rounding to nearest does not give."""

    pair: str
    weight: str
    others: int
    total: int


def match_weights(source: ir.Model, models: Iterable[ir.Model], table: EncodingTable) -> list[Matched]:
    """Gives encodings of ``table`` that name a pair of ``source`` the name of the float weight at the same place.

    The same place is an operand of a node of one type that gives a tensor of one name: quantizers keep the names of
    results, and call the pair as they like.
    """
    nodes = {str(output.name): node for model in models for node in model.graph for output in node.outputs}
    found: list[Matched] = []
    for name, integers, user, port in _pairs(source):
        weight = _weight_at(nodes, user, port)
        if weight is None or weight.const_value is None or name not in table.encodings:
            continue
        if not weight.name or weight.name == name or weight.name in table.encodings:
            continue
        if tuple(weight.const_value.shape.numpy()) != tuple(integers.shape.numpy()):
            continue
        encoding = table.encodings.pop(name)
        table.encodings[weight.name] = encoding
        others = _other_integers(weight.const_value, integers, encoding)
        found.append(Matched(name, weight.name, others, integers.size))
    return found


def _pairs(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol, ir.Node, int]]:
    """Each stored weight that is taken off its grid: its name, its integers, and the node and operand that read it."""
    for node in model.graph:
        integers = constant_of(node.inputs[0]) if node.op_type == "DequantizeLinear" and node.inputs else None
        if integers is not None:
            for user, port in node.outputs[0].uses():
                yield plain_name(node), integers, user, port


def _weight_at(nodes: Mapping[str, ir.Node], user: ir.Node, port: int) -> ir.Value | None:
    same = nodes.get(str(user.outputs[0].name))
    if same is None or (same.domain, same.op_type) != (user.domain, user.op_type) or port >= len(same.inputs):
        return None
    value = same.inputs[port]
    return value if value is not None and value.is_initializer() else None


def _other_integers(weight: ir.TensorProtocol, integers: ir.TensorProtocol, encoding: Encoding) -> int:
    """How many integers are others than the float weight rounded to nearest gives."""
    made = quantized(weight.numpy(), encoding)
    return int(np.count_nonzero(made != integers.numpy().astype(np.int64)))
