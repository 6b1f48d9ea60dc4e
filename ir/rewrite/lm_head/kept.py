"""A graph lets all rows into its head, or some that an earlier node selects; this finds which."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ...core.constants import constant_of
from ...core.errors import PassRefused
from ...core.operators import of
from ...core.operators.walks import INDEX_CARRIED
from ...shapes.infer import Facts
from ...symbolic.dims import Dim, Expr
from ...symbolic.symbols import dims_of
from .find import LmHead, Tokens
from .ops import ELEMENTWISE, LAYOUT, NORMS, QUANTIZE, REDUCTIONS, SELECTIONS, is_constant, key_of

MAX_STEPS = 64
_FAR = 2**31 - 1
_ROWWISE = ELEMENTWISE | NORMS | QUANTIZE | REDUCTIONS


@dataclass(eq=False)
class Kept:
    """``full`` holds a row for every token; ``point`` holds those that reach the head, ``full`` itself where all do.

    Attributes:
        count: How many rows ``point`` has, as far as it is known.
        last: The node output that tells the last row of each batch line (an ArgMax over positions), or None where
            the selection takes the rows' end.
    """

    full: ir.Value
    point: ir.Value
    count: Dim | None
    last: ir.Value | None = None

    @property
    def selects(self) -> bool:
        """True where rows are left out."""
        return self.point is not self.full

    @property
    def given_by(self) -> list[ir.Value]:
        """The graph inputs that the selection depends on, beside the rows themselves."""
        return _inputs_behind(self) if self.selects else []


def _inputs_behind(kept: Kept) -> list[ir.Value]:
    found: dict[ir.Value, None] = {}
    seen: set[ir.Value] = {kept.full}
    work = [kept.point]
    while work:
        value = work.pop()
        if value in seen:
            continue
        seen.add(value)
        node = value.producer()
        if node is not None:
            work.extend(given for given in node.inputs if given is not None)
        elif value.is_graph_input():
            found[value] = None
    return list(found)


def kept_rows(head: LmHead, tokens: Tokens, facts: Facts, where: str) -> Kept:
    """Walks from the head's operand up to the rows of all tokens; PassRefused where that is not understood."""
    steps: list[ir.Node] = []
    value = head.rows
    for _ in range(MAX_STEPS):
        if _has_all_rows(value, tokens, facts) and not _selects_all(value, tokens, facts):
            return _kept(value, steps, head, tokens, facts, where)
        node = value.producer()
        if node is None:
            break
        if key_of(node) in LAYOUT | SELECTIONS | QUANTIZE:
            steps.append(node)
            given = node.inputs[0]
            assert given is not None, "layout operators have a first operand"
            value = given
            continue
        frontier = _frontier(value)
        if len(frontier) != 1:
            break
        steps.clear()
        value = frontier[0]
        if value.producer() is node:
            break
    raise PassRefused(
        "cannot tell the rows that reach the head",
        where=where,
        found=f"{_named(value)} of shape {_text(facts.shape(value))}",
        wanted=f"rows of shape [{tokens.batch}, {tokens.length}, width]",
        hint="Run simplify first; shapes that the file declares wrongly also lead here.",
    )


def _kept(full: ir.Value, steps: list[ir.Node], head: LmHead, tokens: Tokens, facts: Facts, where: str) -> Kept:
    selecting = [node for node in steps if key_of(node) in SELECTIONS]
    if not selecting:
        return Kept(full, full, tokens.length)
    if len(selecting) > 1:
        raise _unclear(selecting[0], where)
    below = [node.outputs[0] for node in steps[: steps.index(selecting[0]) + 1]]
    width = (facts.shape(full) or (0,))[-1]
    fitting = [v for v in below if (s := facts.shape(v)) is None or (len(s) in (2, 3) and s[-1] == width)]
    three = [v for v in fitting if len(facts.shape(v) or ()) == 3]
    if not fitting:
        raise _unclear(selecting[0], where)
    point = (three or fitting)[0]
    shape = facts.shape(point)
    count: Dim | None = shape[1] if shape is not None and len(shape) == 3 else 1 if shape is not None else None
    return Kept(full, point, count, _last_row(selecting[0], full, tokens, facts, where))


def _has_all_rows(value: ir.Value, tokens: Tokens, facts: Facts) -> bool:
    shape = facts.shape(value)
    if shape is None or len(shape) != 3 or shape[:2] == (tokens.batch, tokens.length):
        return shape is not None and len(shape) == 3
    declared = dims_of(value)  # a length that was derived in another form is the one that the file declares
    return isinstance(shape[1], Expr) and declared is not None and declared[:2] == (tokens.batch, tokens.length)


def _selects_all(value: ir.Value, tokens: Tokens, facts: Facts) -> bool:
    """True where a selection of the last rows happens to take as many as there are."""
    node = value.producer()
    if node is None or of(node).reads is None:
        return False
    given, index = node.inputs[:2]
    known = given is not None and index is not None and _argmax(index) is not None
    return known and given is not None and _has_all_rows(given, tokens, facts)


def _frontier(value: ir.Value) -> list[ir.Value]:
    """Where a region of operators that work row by row takes its rows from: a norm after a selection."""
    found: dict[ir.Value, None] = {}
    seen: set[ir.Node] = set()
    work = [value]
    while work and len(seen) < MAX_STEPS:
        current = work.pop()
        node = current.producer()
        if is_constant(current) or node in seen:
            continue
        if node is None or key_of(node) not in _ROWWISE:
            found[current] = None
            continue
        seen.add(node)
        carriers = node.inputs if key_of(node) in ELEMENTWISE else node.inputs[:1]
        work.extend(given for given in carriers if given is not None)
    return list(found)


def _last_row(node: ir.Node, full: ir.Value, tokens: Tokens, facts: Facts, where: str) -> ir.Value | None:
    """None where the selection takes the rows' end; the ArgMax behind its indices; PassRefused for all else."""
    index = node.inputs[1]
    assert index is not None, "a selection has indices"
    known = facts.ints(index)
    if node.op_type == "Slice":
        if not _to_the_end(node, tokens, facts):
            raise _unclear(node, where)
        return None
    on_rows = node.op_type == "Gather" and node.inputs[0] is full
    if on_rows and known is not None and all(_is_last(item, tokens.length) for item in known.items):
        return None
    found = _argmax(index)
    if found is None:
        raise _unclear(node, where)
    return found


def _is_last(item: Dim | bool, length: Dim) -> bool:
    return item == -1 or (not isinstance(item, bool) and item - length == -1)


def _to_the_end(node: ir.Node, tokens: Tokens, facts: Facts) -> bool:
    """Slice(rows, start, end, axis 1): the end lies behind the last row, the step is 1."""
    ends = facts.ints(node.inputs[2]) if node.inputs[2] is not None else None
    axes = facts.ints(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    steps = facts.ints(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else None
    if ends is None or axes is None or len(ends.items) != 1:
        return False
    end = ends.items[0]
    far = end == tokens.length or (not isinstance(end, Expr) and end >= _FAR)
    return far and axes.items[0] in (1, -2) and (steps is None or steps.items[0] == 1)


def _argmax(index: ir.Value) -> ir.Value | None:
    """The one ArgMax that the indices are computed from."""
    found: dict[ir.Value, None] = {}
    seen: set[ir.Value] = set()
    work = [index]
    while work:
        value = work.pop()
        node = value.producer()
        if node is None or value in seen:
            continue
        seen.add(value)
        if node.op_type == "ArgMax":
            found[value] = None
        elif node.op_type in INDEX_CARRIED and not node.domain:
            carriers = node.inputs[1:] if node.op_type == "Where" else node.inputs
            work.extend(given for given in carriers if given is not None and constant_of(given) is None)
    return next(iter(found)) if len(found) == 1 else None


def _unclear(node: ir.Node, where: str) -> PassRefused:
    return PassRefused(
        "the graph keeps some rows before its head already, chosen in a way that is not understood",
        where=where,
        found=f"{node.op_type} {node.name!r}",
        wanted="the last rows: a Slice to the end, index -1, or indices from an ArgMax over positions",
        hint="Export the graph with all rows, or with the last one.",
    )


def _named(value: ir.Value) -> str:
    node = value.producer()
    return f"{node.op_type} {node.name!r}" if node is not None else f"input {value.name!r}"


def _text(shape: tuple[Dim, ...] | None) -> str:
    return "unknown" if shape is None else f"[{', '.join(str(dim) for dim in shape)}]"
