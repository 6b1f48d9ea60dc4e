"""States inside one operator: attention and recurrence operators that take a past and give a present."""

from __future__ import annotations

import onnx_ir as ir

from .base import Layout, State
from .ports import GROWING_AXIS, PAGED, PORTS, RECURRENT, Port
from .trace import DefUsePath


def match(path: DefUsePath, node: ir.Node, index: int) -> State | None:
    """The state that enters ``node`` at its past port ``index``, or None; its output is not looked for here."""
    key = (node.domain, node.op_type)
    port = next((port for port in PORTS.get(key, ()) if port.past == index), None)
    if port is None:
        return None
    carried = node.outputs[port.present] if port.present < len(node.outputs) else None
    recurrent = node.op_type in RECURRENT
    return State(
        layout=Layout.FUSED,
        axis=None if recurrent or node.op_type in PAGED else path.axis_at_start(GROWING_AXIS.get(key, 2)),
        chain=path.chain,
        update=node,
        carried=carried,
        evidence=f"{node.op_type} {node.name!r} takes it at input {index} and gives it back",
        port=port,
        recurrent=recurrent,
    )


__all__ = ["PORTS", "Port", "match"]
