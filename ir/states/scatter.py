"""States written in place at positions are found here: by ScatterND, ScatterElements, TensorScatter, functions."""

from __future__ import annotations

import onnx_ir as ir

from .base import Layout, State
from .signatures import Signatures
from .trace import DefUsePath, forward


def match(path: DefUsePath, node: ir.Node, index: int, signatures: Signatures) -> State | None:
    """The state that ``node`` writes new rows into, or None; its output is not looked for here."""
    access = signatures.scatter(node)
    if access is None or access.data is not node.inputs[index] or access.updates is path.value:
        return None
    carried = node.outputs[0]
    return State(
        layout=Layout.SCATTER,
        axis=path.axis_at_start(access.axis),
        chain=path.chain,
        update=node,
        new=access.updates,
        carried=carried,
        positions=access.positions,
        selector=access.selector,
        readers=tuple(_readers(carried, signatures)),
        evidence=f"{node.op_type} {node.name or carried.name!r} writes it at positions",
        axis_at_update=access.axis,
    )


def _readers(carried: ir.Value, signatures: Signatures) -> list[ir.Node]:
    """The nodes that gather rows by index out of the written cache."""
    found: list[ir.Node] = []
    for path in forward(carried):
        for node, index in path.value.uses():
            access = signatures.gather(node)
            if index == 0 and access is not None and access.data is path.value:
                found.append(node)
    return found
