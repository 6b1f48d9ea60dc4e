"""Whether a tensor is a key or a value of an attention, by what consumes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

from ..core.operators import key_of, keys, of
from ..core.operators.walks import CACHE_TO_PRODUCT, PRODUCT_TO_SOFTMAX, SOFTMAX_TO_PRODUCT
from .ports import KEY_VALUE_INPUTS, MASK_INPUTS, PORTS
from .trace import is_pair

MAX_VISITS = 200

_PRODUCTS = keys(lambda row: row.product and row.product.pairs) | {("", "Gemm")}
"""Products that exporters spell attention with; of one head alone, it may be a Gemm."""
_SOFTMAX = keys(lambda row: row.softmax)
_FUSED_PORTS = {name: {key: "key", value: "value"} for name, (key, value) in KEY_VALUE_INPUTS.items()}


def _never(node: ir.Node) -> bool:
    return False


def attends(value: ir.Value, reads: Callable[[ir.Node], bool] = _never) -> str | None:
    """``"key"``, ``"value"``, or None for a tensor that no attention takes as either.

    A key's product with the query reaches a Softmax; a value is multiplied by what came from one. ``reads`` tells
    the calls of local functions that read rows out of a cache.
    """
    return next((role for _, role in products(value, reads)), None)


def products(value: ir.Value, reads: Callable[[ir.Node], bool] = _never) -> Iterator[tuple[ir.Node, str]]:
    """The nodes that multiply ``value`` as an attention's key or value, each with which of the two."""
    for node, index in _reach(value, CACHE_TO_PRODUCT, reads):
        role = _FUSED_PORTS.get((node.domain, node.op_type), {}).get(index)
        if role is not None:
            yield node, role
        if (node.domain, node.op_type) not in _PRODUCTS:
            continue
        other = node.inputs[1 - index] if index < 2 and len(node.inputs) > 1 else None
        if other is not None and comes_from_softmax(other):
            yield node, "value"
        elif path_to_softmax(node):
            yield node, "key"


def only_read(value: ir.Value, reads: Callable[[ir.Node], bool] = _never) -> bool:
    """True where nothing but attentions take ``value``, as key or value: hidden rows are queries or summed, too.

    An operator that has a past of its own takes new rows there, not a finished cache.
    """
    for node, index in _reach(value, CACHE_TO_PRODUCT, reads):
        row = of(node)
        moved = _passes(node, CACHE_TO_PRODUCT) or reads(node)
        elsewhere = row.sizes or row.writes is not None or row.bodies
        if moved or elsewhere or (key_of(node) in _PRODUCTS and index == 1):
            continue
        if index not in _FUSED_PORTS.get((node.domain, node.op_type), {}) or _has_past(node):
            return False
    return True


def _has_past(node: ir.Node) -> bool:
    ports = PORTS.get((node.domain, node.op_type), ())
    return any(port.past < len(node.inputs) and node.inputs[port.past] is not None for port in ports)


def path_to_softmax(product: ir.Node) -> list[ir.Node]:
    """The nodes between ``product``'s scores and the Softmax they reach through scaling and masking; [] if none."""
    met: list[ir.Node] = []
    for node, _ in _reach(product.outputs[0], PRODUCT_TO_SOFTMAX):
        met.append(node)
        if (node.domain, node.op_type) in _SOFTMAX:
            return met
    return []


def mask_operands(product: ir.Node) -> list[ir.Value]:
    """What joins the scores of ``product`` before the Softmax: the operands on the way, or a fused operator's masks."""
    ports = MASK_INPUTS.get((product.domain, product.op_type))
    if ports is not None:
        return [value for value in product.inputs[ports[0] : ports[-1] + 1] if value is not None]
    path = path_to_softmax(product)
    return [value for node in path for value in node.inputs if value is not None and value.producer() is not product]


def comes_from_softmax(value: ir.Value) -> bool:
    """True where ``value`` is a Softmax's output, moved or cast."""
    work, visits = [value], 0
    while work and visits < MAX_VISITS:
        visits += 1
        node = work.pop().producer()
        if node is None:
            continue
        if (node.domain, node.op_type) in _SOFTMAX:
            return True
        if _passes(node, SOFTMAX_TO_PRODUCT):
            work.extend(v for v in node.inputs if v is not None)
    return False


def _passes(node: ir.Node, through: frozenset[str]) -> bool:
    """True where a walk through these operators goes on; a quantized tensor is the same tensor."""
    return (node.op_type in through and not node.domain) or is_pair(node)


def _reach(
    start: ir.Value, through: frozenset[str], reads: Callable[[ir.Node], bool] = _never
) -> list[tuple[ir.Node, int]]:
    """Every use met from ``start`` when walking on through ops in ``through`` and calls that only read."""
    uses: list[tuple[ir.Node, int]] = []
    work, seen = [start], {id(start)}
    while work and len(uses) < MAX_VISITS:
        value = work.pop(0)
        for node, index in value.uses():
            uses.append((node, index))
            if not _passes(node, through) and not reads(node):
                continue
            for output in node.outputs:
                if id(output) not in seen:
                    seen.add(id(output))
                    work.append(output)
    return uses
