"""Operands that count an attention's keys say nothing more once the keys are those of the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from ...core.operators import of
from ...states.attention import products
from ...states.base import State
from ...states.signatures import Signatures, strip_shape_ops


@dataclass(frozen=True)
class KeyCount:
    """An operand of a standard attention that counts valid keys (``nonpad_kv_seqlen``, Attention-24), and its input."""

    node: ir.Node
    port: int
    input: ir.Value


def key_counts(states: Iterable[State], signatures: Signatures) -> list[KeyCount]:
    """The counts that an input gives of keys that are written in place, one for each attention."""
    found: dict[tuple[int, int], KeyCount] = {}
    for carried in [state.carried for state in states if state.in_place and state.carried is not None]:
        for node, _ in products(carried, signatures.reads):
            for port in of(node).lengths if not node.domain else ():
                value = node.inputs[port] if port < len(node.inputs) else None
                root = strip_shape_ops(value)[0] if value is not None else None
                if root is not None and root.is_graph_input():
                    found[id(node), port] = KeyCount(node, port, root)
    return list(found.values())


def drop_key_counts(counts: Iterable[KeyCount], dead: list[ir.Node]) -> None:
    """Leaves the ports empty: with as many valid keys as the run has tokens, every key is valid."""
    for count in counts:
        value = count.node.inputs[count.port]
        count.node.replace_input_with(count.port, None)
        maker = value.producer() if value is not None else None
        dead.extend([maker] if maker is not None else ())
