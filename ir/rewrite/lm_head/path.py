"""The path between the rows and the logits is searched, and each node there must keep rows apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from ...core.errors import PassRefused
from ...shapes.infer import Facts
from ...symbolic.dims import Dim
from .find import LmHead, Tokens
from .kept import Kept
from .ops import (
    ELEMENTWISE,
    HEADS,
    LAYOUT,
    NORMS,
    QUANTIZE,
    RANK_TWO,
    REDUCTIONS,
    WHOLE_TENSOR,
    Key,
    data_ports,
    is_constant,
    key_of,
    last_axis,
)


@dataclass(eq=False)
class Path:
    """The nodes in order, the operands with rows of their own, the widths of Reshape targets (rank, last dimension)."""

    nodes: list[ir.Node]
    sides: list[tuple[ir.Node, int]] = field(default_factory=list[tuple[ir.Node, int]])
    targets: list[tuple[ir.Node, int, int]] = field(default_factory=list[tuple[ir.Node, int, int]])


@dataclass(eq=False)
class _Context:
    head: LmHead
    kept: Kept
    tokens: Tokens
    facts: Facts
    where: str

    def rank(self, value: ir.Value | None) -> int:
        """The rank of a value; 3 where nothing tells it, as rows have."""
        shape = self.facts.shape(value) if value is not None else None
        return len(shape) if shape is not None else 3

    @property
    def flat(self) -> bool:
        """True where one row a batch line is kept without an axis of rows: the axis comes with more rows."""
        return self.rank(self.kept.point) == 2

    def refuse(self, node: ir.Node, what: str, hint: str) -> PassRefused:
        return PassRefused(what, where=self.where, found=f"{node.op_type} {node.name!r}", hint=hint)


def path_of(head: LmHead, kept: Kept, tokens: Tokens, facts: Facts, where: str) -> Path:
    """Checks that every node between rows and logits keeps rows apart; PassRefused names the first that does not."""
    context = _Context(head, kept, tokens, facts, where)
    path = Path(_between(kept.point, head))
    inside = {kept.point, *(output for node in path.nodes for output in node.outputs)}
    for node in path.nodes:
        if node is not head.node:
            _check(context, node)
        elif key_of(node) in HEADS:
            _check_head(context, node)
        path.sides.extend((node, at) for at in _sides(context, node, inside))
        if node.op_type == "Reshape":
            path.targets.append((node, *_target(context, node)))
    _refuse_other_uses(context, path.nodes)
    return path


def _between(start: ir.Value, head: LmHead) -> list[ir.Node]:
    """The nodes that lead from ``start`` to the logits along operands that carry rows, in graph order."""
    behind: set[ir.Node] = set()
    work = [head.output]
    while work:
        value = work.pop()
        node = value.producer()
        if value is start or node is None or node in behind or is_constant(value):
            continue
        behind.add(node)
        ports = [head.port] if node is head.node else data_ports(node)
        work.extend(given for at in ports if at < len(node.inputs) and (given := node.inputs[at]) is not None)
    graph = next((node.graph for node in behind), None)
    reached: set[ir.Value] = {start}
    ordered: list[ir.Node] = []
    for node in graph if graph is not None else ():
        if node in behind and any(given in reached for given in node.inputs):
            ordered.append(node)
            reached.update(node.outputs)
    return ordered


def _check_head(context: _Context, node: ir.Node) -> None:
    key = key_of(node)
    if key in WHOLE_TENSOR:
        raise context.refuse(
            node,
            "the head quantizes all rows with one scale, so fewer rows give other numbers",
            "Quantize before the selection (DynamicQuantizeLinear, MatMulInteger), or with a constant scale.",
        )
    if context.flat and key in RANK_TWO:
        raise context.refuse(node, "the head takes no axis of rows", "Run it on [batch · rows, width] instead.")
    transposed = node.attributes.get("transA")
    kernel = context.facts.shape(node.inputs[1]) if node.op_type == "Conv" and node.inputs[1] is not None else None
    if (transposed is not None and transposed.as_int()) or (kernel is not None and set(kernel[2:]) - {1}):
        raise context.refuse(
            node, "the head mixes rows", "Export the head as a product of each row with the vocabulary."
        )


def _check(context: _Context, node: ir.Node) -> None:
    key = key_of(node)
    test = _KEEPS_ROWS.get(key)
    good = key in ELEMENTWISE or (test is not None and test(context, node))
    if not good or (context.flat and key not in ELEMENTWISE | NORMS):
        raise context.refuse(
            node,
            "an operator between the rows and the logits does not keep rows apart",
            "Move it out of the graph, or export the graph without it.",
        )


def _constant_scale(context: _Context, node: ir.Node) -> bool:
    return all(is_constant(given) for given in node.inputs[1:])


def _reduces_last(context: _Context, node: ir.Node) -> bool:
    rank = context.rank(node.inputs[0])
    keepdims = node.attributes.get("keepdims")
    if "axes" in node.attributes:
        axes = tuple(node.attributes["axes"].as_ints())
    else:
        content = context.facts.ints(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
        axes = content.items if content is not None else ()
    return (keepdims is None or keepdims.as_int() == 1) and tuple(axes) in ((-1,), (rank - 1,))


def _keeps_row_axis(context: _Context, node: ir.Node) -> bool:
    """Squeeze of an axis that a convolution added, not of the rows'."""
    return context.rank(node.inputs[0]) > 3


def _flattens_rows(context: _Context, node: ir.Node) -> bool:
    axis = node.attributes.get("axis")
    return axis is not None and axis.as_int() in (-1, context.rank(node.inputs[0]) - 1)


def _along_last(context: _Context, node: ir.Node) -> bool:
    return last_axis(node, context.rank(node.inputs[0]))


def _cuts_last(context: _Context, node: ir.Node) -> bool:
    """A Slice of the vocabulary."""
    axes = context.facts.ints(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    return axes is not None and set(axes.items) <= {-1, context.rank(node.inputs[0]) - 1}


def _picks_last(context: _Context, node: ir.Node) -> bool:
    axis = node.attributes.get("axis")
    return axis is not None and axis.as_int() in (-1, context.rank(node.inputs[0]) - 1) and is_constant(node.inputs[1])


_KEEPS_ROWS: Mapping[Key, Callable[[_Context, ir.Node], bool]] = {
    **dict.fromkeys(LAYOUT, lambda context, node: True),
    **dict.fromkeys(QUANTIZE, _constant_scale),
    **dict.fromkeys(NORMS, _along_last),
    **dict.fromkeys(REDUCTIONS, _reduces_last),
    ("", "Squeeze"): _keeps_row_axis,
    ("", "Flatten"): _flattens_rows,
    ("", "Slice"): _cuts_last,
    ("", "Gather"): _picks_last,
}


def _sides(context: _Context, node: ir.Node, inside: set[ir.Value]) -> list[int]:
    """The operands from elsewhere that have rows of their own; PassRefused where they cannot be selected."""
    if key_of(node) not in ELEMENTWISE:
        return []
    rank = context.rank(node.outputs[0])
    found: list[int] = []
    for at, given in enumerate(node.inputs):
        if given is None or given in inside:
            continue
        shape = context.facts.shape(given)
        if shape is not None and (len(shape) < 2 or all(dim == 1 for dim in shape[:-1])):
            continue
        if shape is None and is_constant(given):
            continue
        if shape is not None and rank == 3 and len(shape) in (2, 3) and shape[-2] == 1:
            continue
        rowed = shape is not None and len(shape) == 3 and shape[:2] == (context.tokens.batch, context.tokens.length)
        if not rowed or context.kept.selects or not isinstance((shape or ("",))[-1], int):
            raise context.refuse(
                node,
                f"the operand {given.name!r} has rows of its own that cannot be selected alike",
                "Give it the shape [batch, tokens, width], or apply it outside of the graph.",
            )
        found.append(at)
    return found


def _target(context: _Context, node: ir.Node) -> tuple[int, int]:
    """Rank and last dimension of what a Reshape makes; PassRefused where rows are not one axis of it."""
    shape = context.facts.shape(node.outputs[0])
    last: Dim | None = shape[-1] if shape else None
    if shape is None or not isinstance(last, int) or len(shape) not in (2, 3):
        raise context.refuse(node, "a Reshape between the rows and the logits is not understood", "Run simplify first.")
    if len(shape) == 3 and context.rank(node.inputs[0]) == 3:
        given = context.facts.shape(node.inputs[0]) if node.inputs[0] is not None else None
        if given is not None and given[:2] != shape[:2]:
            raise context.refuse(node, "a Reshape between the rows and the logits mixes rows", "Run simplify first.")
    return len(shape), last


def _refuse_other_uses(context: _Context, nodes: list[ir.Node]) -> None:
    """What other outputs are computed from keeps its rows, so it must not lie on the path."""
    kept = context.kept
    values = [output for node in nodes for output in node.outputs if output is not context.head.output]
    if kept.selects:
        values.append(kept.point)
    inside = set(nodes)
    for value in (*values, context.head.output):
        other = next((use.node for use in value.uses() if use.node not in inside and use.node.op_type != "Shape"), None)
        if other is not None and _matters(other):
            raise context.refuse(
                other,
                f"{value.name!r} lies before the logits and is also used elsewhere with all its rows",
                "Drop the output that needs it, or keep all rows.",
            )
        if value is not context.head.output and value.is_graph_output():
            raise PassRefused(
                f"{value.name!r} lies before the logits and is an output of its own",
                where=context.where,
                hint="Drop that output first: it would lose rows too.",
            )


def _matters(node: ir.Node) -> bool:
    """True where a graph output comes from it; what nothing needs is no use."""
    seen: set[ir.Node] = set()
    work = [node]
    while work:
        current = work.pop()
        if current in seen:
            continue
        seen.add(current)
        for output in current.outputs:
            if output.is_graph_output():
                return True
            work.extend(use.node for use in output.uses())
    return False
