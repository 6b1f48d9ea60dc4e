"""States that are only read, or handed on unchanged: cross-attention keys and values."""

from __future__ import annotations

from collections.abc import Callable, Container

import onnx_ir as ir

from ..core.operators.walks import ROWS_TO_CONDITION
from . import recurrent
from .attention import attends, only_read
from .base import Layout, Pairing, State
from .signatures import is_whole_range, strip_shape_ops
from .trace import Bridges, is_layout

MAX_VISITS = 200


def match(value: ir.Value, outputs: Container[int], reads: Callable[[ir.Node], bool], bridges: Bridges) -> State | None:
    """The state that an attention reads and nothing is added to, or None.

    ``Where(condition, past, computed)`` counts as handed on: some runs compute it afresh (an encoder's run). Where the
    condition tells rows apart some are written, and a tensor that comes back shifted is no fixed one either.
    """
    if value.shape is None or len(value.shape) < 3 or attends(value, reads) is None or not only_read(value, reads):
        return None
    output = _handed_on(value, outputs, bridges)
    if output is None and recurrent.match(value, outputs, ()) is not None:
        return None
    return State(
        layout=Layout.FIXED,
        pairing=Pairing.INPUT_ONLY if output is None else Pairing.BOTH,
        kind="cross",
        input=value,
        output=output,
        evidence="an attention reads it and nothing is added",
    )


def _handed_on(value: ir.Value, outputs: Container[int], bridges: Bridges) -> ir.Value | None:
    """The output that ``value`` reaches through layout nodes and Where, or None."""
    work, seen = [value], {id(value)}
    while work and len(seen) < MAX_VISITS:
        at = work.pop(0)
        if id(at) in outputs:
            return at
        following = [node.outputs[0] for node, index in at.uses() if _hands_on(node, index)]
        if id(at) in bridges:
            following.append(bridges[id(at)][0])
        work.extend(value for value in following if id(value) not in seen)
        seen.update(map(id, following))
    return None


def _hands_on(node: ir.Node, index: int) -> bool:
    if node.op_type == "Where" and not node.domain:
        return index in (1, 2) and not _tells_rows(node.inputs[0])
    return index == 0 and is_layout(node)


def _tells_rows(condition: ir.Value | None) -> bool:
    """True for a condition that is computed from row numbers 0, 1, 2 …: it chooses rows, and not a whole run."""
    work, seen = [condition], set[int]()
    while work and len(seen) < MAX_VISITS:
        value = work.pop()
        if value is None or id(value) in seen:
            continue
        seen.add(id(value))
        if is_whole_range(strip_shape_ops(value)[0]):
            return True
        node = value.producer()
        work.extend(node.inputs if node is not None and node.op_type in ROWS_TO_CONDITION else ())
    return False
