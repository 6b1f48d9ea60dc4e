"""What of a graph a target's compiler does not take, by kind, with the pass that helps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from ...core.scopes import all_nodes, bodies
from .base import TargetTable, spelled

BITS16 = (ir.DataType.UINT16, ir.DataType.INT16)


@dataclass(frozen=True)
class Finding:
    """One kind of thing that is not taken.

    Attributes:
        kind: An operator's name, or a form: local functions, control flow, rank.
        count: How often it stands in the graph.
        why: What the target's table says.
        helps: The pass that replaces it; empty where none does.
    """

    kind: str
    count: int
    why: str
    helps: str = ""

    def __str__(self) -> str:
        """One line."""
        hint = f"; {self.helps} may replace it" if self.helps else ""
        return f"{self.count} x {self.kind}: {self.why}{hint}"


def survey(model: ir.Model, table: TargetTable) -> list[Finding]:
    """Everything that the target does not take, the most frequent first."""
    found = Counter[tuple[str, str, str]]()
    opset, lower = model.opset_imports.get("", 0), f"lower{{target={table.name}}}"
    for kind, nodes in _by_operator(model).items():
        asked = nodes if table.rule(*kind) is not None or table.refuses_all(*kind, opset) else ()
        for node in asked:
            if why := table.refuses(node, opset):
                found[spelled(node), why, lower] += 1
        for node in nodes if not table.control_flow else ():
            if bodies(node):
                found[spelled(node), f"{table.name} takes no branches", "select-branch or simplify"] += 1
    if model.functions and not table.functions:
        found["local function", f"{table.name} expands none", lower] += len(model.functions)
    for kind, why, helps in _values(model, table):
        found[kind, why, helps] += 1
    return [Finding(kind, count, why, helps) for (kind, why, helps), count in found.most_common()]


def _by_operator(model: ir.Model) -> dict[tuple[str, str], list[ir.Node]]:
    """All nodes but the calls of local functions, by domain and operator: of most operators any node is taken."""
    found: dict[tuple[str, str], list[ir.Node]] = {}
    for node in all_nodes(model):
        found.setdefault((node.domain, node.op_type), []).append(node)
    if not model.functions:
        return found
    called = {(domain, name) for domain, name, _ in model.functions}
    return {
        kind: [node for node in nodes if node.op_identifier() not in model.functions] if kind in called else nodes
        for kind, nodes in found.items()
    }


def _values(model: ir.Model, table: TargetTable) -> Iterator[tuple[str, str, str]]:
    most = table.max_rank
    if most is not None:
        values = (value for node in all_nodes(model) for value in node.outputs)
        for rank in (len(value.shape) for value in values if value.shape is not None):
            if rank > most:
                yield f"tensor of rank {rank}", f"{table.name} takes {most} axes at most", ""
    if not table.qdq16:
        for node in all_nodes(model):
            if node.op_type == "QuantizeLinear" and node.outputs[0].dtype in BITS16:
                yield "pair on a 16-bit grid", f"{table.name} does not compute it as the operators say", ""
    for value in model.graph.inputs:
        if not table.int64_inputs and value.dtype is ir.DataType.INT64:
            yield "int64 input", f"{table.name} takes 32-bit integers", "narrow-int"
        if not table.empty_inputs and value.shape is not None and 0 in list(value.shape):
            yield "input of length zero", f"{table.name} takes none", "strip-states"
