"""Finds numbers that all tokens of a run, or a cache's length, have a part in, where each token should stand alone."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ..core.constants import constant_of
from ..core.operators import of
from ..core.operators.walks import FIRST_ALONE, INDEX_VIEWS, NUMBERS_END
from ..shapes.infer import Facts
from ..states import Layout, State
from ..symbolic.dims import Dim, Expr, free_symbols
from .roles import Role

ALONE = "each token's numbers made of that token, its position and the cache alone"
_SOURCES = (Role.TOKEN_IDS, Role.EMBEDDINGS, Role.POSITIONS)
_CONTENT = (Role.TOKEN_IDS, Role.EMBEDDINGS)


@dataclass(frozen=True)
class Together:
    """A number of the whole run or of a length, and where a token's own numbers take it in."""

    source: ir.Node
    what: str
    taken: ir.Node

    def __str__(self) -> str:
        """The source, then the clause."""
        return f"{self.place} {self.clause}"

    @property
    def place(self) -> str:
        """The operator that makes the number."""
        return f"{self.source.op_type} {self.source.name!r}"

    @property
    def clause(self) -> str:
        """What it does, and which operator takes it in."""
        if self.taken is self.source:
            return f"{self.what}, and a cache is given that"
        return f"{self.what}, and {self.taken.op_type} {self.taken.name!r} takes it into each token's numbers"


@dataclass(frozen=True)
class _Mixed:
    """What made a number of several tokens or a length; ``picked`` where it is some of the tokens' own numbers."""

    source: ir.Node
    what: str
    picked: bool = False


@dataclass(eq=False)
class _Walk:
    facts: Facts
    length: Dim | None
    lengths: frozenset[str]
    new_rows: frozenset[ir.Value]
    content: set[ir.Value] = field(default_factory=set[ir.Value])
    placed: set[ir.Value] = field(default_factory=set[ir.Value])
    mixed: dict[ir.Value, _Mixed] = field(default_factory=dict[ir.Value, "_Mixed"])

    def axis(self, value: ir.Value | None) -> int | None:
        """Where a value has one line for each token of the run."""
        shape = self.facts.shape(value) if value is not None else None
        found = [at for at, dim in enumerate(shape or ()) if dim == self.length]
        return found[0] if len(found) == 1 and self.length is not None else None

    def rank(self, value: ir.Value) -> int:
        """How many axes a value has; 0 where nothing tells."""
        return len(self.facts.shape(value) or ())


def taken_together(
    model: ir.Model, states: Sequence[State], roles: Mapping[str, Role], facts: Facts, length: Dim | None
) -> Iterator[Together]:
    """Numbers of the whole run, or of a cache's length, that come into those of single tokens; changes nothing.

    ``length`` is the run's own symbol; without it only lengths of caches are looked for. Rows that are picked for the
    logits, and masks, are none. Graphs that carry recurrent states mix tokens on purpose and are not looked into.
    """
    if any(s.recurrent or s.layout in (Layout.RECURRENT, Layout.WINDOW) for s in states if not _counts(s)):
        return
    told = [dim for state in states for dim in (state.length,)]
    told += [length] if length is not None else []
    new_rows = frozenset(state.new for state in states if state.new is not None)
    walk = _Walk(facts, length, frozenset(name for dim in told for name in free_symbols(dim)), new_rows)
    for value in model.graph.inputs:
        role = roles.get(value.name or "")
        if role in _SOURCES:
            (walk.content if role in _CONTENT else walk.placed).add(value)
    updates = {node for state in states for node in (state.update, *state.chain) if node is not None}
    for node in model.graph:
        if node not in updates and node.op_type not in NUMBERS_END:
            found = _step(walk, node)
            if found is not None:
                yield found


def _counts(state: State) -> bool:
    return state.input is not None and state.input.dtype is not None and state.input.dtype.is_integer()


def _step(walk: _Walk, node: ir.Node) -> Together | None:
    """Follows one operator; what it takes in of the whole run, if anything."""
    operands = [v for v in (node.inputs[:1] if node.op_type in FIRST_ALONE else node.inputs) if v is not None]
    if node.op_type == "Where":
        chosen = _of_tokens(walk, node)
        operands = [chosen] if chosen is not None else operands[1:]
    if node.op_type == "Gather" and len(node.inputs) > 1 and node.inputs[1] is not None and _is_table(node.inputs[0]):
        operands = [node.inputs[1]]  # rows of a table, looked up by tokens or positions
    told = sorted((walk.mixed[v] for v in operands if v in walk.mixed), key=lambda one: one.picked)
    mixed = told[0] if told else _made(walk, node, operands)
    met = mixed is not None and any(v in walk.mixed for v in operands) and _meet(walk, operands)
    for output in node.outputs:
        if any(v in walk.content for v in operands):
            walk.content.add(output)
        elif any(v in walk.placed for v in operands):
            walk.placed.add(output)
        if mixed is not None and not met and not _cancelled(node, operands, walk):
            walk.mixed[output] = mixed
    if mixed is not None and (met or not walk.new_rows.isdisjoint(node.outputs)) and _is_float(node.outputs[0]):
        return Together(mixed.source, mixed.what, node)
    return None


def _meet(walk: _Walk, operands: Sequence[ir.Value]) -> bool:
    """Whether tokens' own numbers, all of them or some picked for the logits, meet a number of several."""
    plain = any(v in walk.content and v not in walk.mixed for v in operands)
    picked = any(v in walk.content and v in walk.mixed and walk.mixed[v].picked for v in operands)
    return plain or (picked and any(v in walk.mixed and not walk.mixed[v].picked for v in operands))


def _of_tokens(walk: _Walk, where: ir.Node) -> ir.Value | None:
    """The branch that a Where takes for every token, where its condition tells padding (a position below 0) alone."""
    value = where.inputs[0]
    for _ in range(MAX_MOVES):
        node = value.producer() if value is not None else None
        if node is None or node.op_type not in INDEX_VIEWS:
            break
        value = node.inputs[0]
    node = value.producer() if value is not None else None
    told = constant_of(node.inputs[1]) if node is not None and len(node.inputs) == 2 else None
    test = _TESTS.get(node.op_type) if node is not None else None
    if (
        node is None
        or told is None
        or told.size != 1
        or test is None
        or node.inputs[0] not in walk.placed
        or told.dtype.is_floating_point()
    ):
        return None
    bound = int(told.numpy().reshape(-1)[0])
    truths = {test(position, bound) for position in (0, 1, 2, 1000)}
    return where.inputs[1 if truths.pop() else 2] if len(truths) == 1 else None


_TESTS: dict[str, Callable[[int, int], bool]] = {
    "Less": operator.lt,
    "LessOrEqual": operator.le,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
}
MAX_MOVES = 8


def _cancelled(node: ir.Node, operands: Sequence[ir.Value], walk: _Walk) -> bool:
    """A place in the run added to the length before it, or to the first position, is a position."""
    integers = all(not _is_float(v) for v in operands)
    return node.op_type == "Add" and integers and sum(v in walk.mixed for v in operands) == len(operands) == 2


def _is_table(value: ir.Value | None) -> bool:
    return value is not None and (constant_of(value) is not None or value.is_initializer())


def _is_float(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.is_floating_point()


def _made(walk: _Walk, node: ir.Node, operands: Sequence[ir.Value]) -> _Mixed | None:
    """Whether an operator makes one number of several tokens, or a number of a length."""
    first = operands[0] if operands else None
    if first is None:
        return None
    if node.op_type == "Cast" and walk.lengths and first not in walk.placed and first not in walk.content:
        held = walk.facts.ints(first)
        names = {name for item in held.items for name in _symbols(item)} if held is not None else set[str]()
        if names & walk.lengths and ir.DataType(node.attributes["to"].as_int()).is_floating_point():
            return _Mixed(node, f"makes a number of the length {', '.join(sorted(names & walk.lengths))}")
    taken = first in walk.content or first in walk.placed
    return _of_several(walk, node, first) if taken else None


def _of_several(walk: _Walk, node: ir.Node, first: ir.Value) -> _Mixed | None:
    """Whether an operator makes one number of several tokens' own."""
    axis, picked = walk.axis(first), False
    rule = _RULES.get(node.op_type, _reduces if of(node).reduces else None)
    if node.op_type == "MatMul":
        mixes = _contracts(walk, node)
    elif rule is _reduces:
        mixes = _reduces(walk, node, axis)
    else:
        mixes = rule is not None and axis is not None and rule(walk, node, axis)
        picked = rule is _picks or (rule is _cuts and _keeps_order(walk, node))
    return _Mixed(node, "takes the tokens of a run together", picked) if mixes else None


def _symbols(item: object) -> frozenset[str]:
    return frozenset(free_symbols(item)) if isinstance(item, Expr) else frozenset()


def _axes(walk: _Walk, node: ir.Node, at: int) -> list[int] | None:
    if "axes" in node.attributes:
        return list(node.attributes["axes"].as_ints())
    told = walk.facts.ints(node.inputs[at]) if len(node.inputs) > at and node.inputs[at] is not None else None  # pyright: ignore[reportArgumentType]
    return [item for item in told.items if isinstance(item, int)] if told is not None else None


def _reduces(walk: _Walk, node: ir.Node, axis: int | None) -> bool:
    """A sum or extreme over the tokens' axis, or over one that they were merged into."""
    axes, shape = _axes(walk, node, 1), walk.facts.shape(node.inputs[0]) or ()  # pyright: ignore[reportArgumentType]
    merged = [at for at, dim in enumerate(shape) if at == axis or _holds_tokens(walk, dim)]
    if axes is None:
        return bool(merged) and (len(node.inputs) < 2 or node.inputs[1] is None)
    return any(a % len(shape) in merged for a in axes if shape)


def _holds_tokens(walk: _Walk, dim: Dim | None) -> bool:
    """True for a product that has the run's length in it, as a Reshape of tokens and their widths gives."""
    own = free_symbols(walk.length) if walk.length is not None else frozenset[str]()
    names = free_symbols(dim) if dim is not None else frozenset[str]()
    return bool(own) and own <= names and not names & (walk.lengths - own)


def _pads(walk: _Walk, node: ir.Node, axis: int) -> bool:
    """Rows put before or behind the tokens: what is cut from it is shifted."""
    told, rank = walk.facts.ints(node.inputs[1]) if len(node.inputs) > 1 else None, walk.rank(node.inputs[0])  # pyright: ignore[reportArgumentType]
    if told is None or len(told.items) != 2 * rank:
        return False
    return any(told.items[at] != 0 for at in (axis, axis + rank))


def _along(walk: _Walk, node: ir.Node, axis: int) -> bool:
    own = node.attributes.get("axis")
    at = own.as_int() if own is not None else 0 if node.op_type.startswith("Arg") else -1
    if node.op_type == "CumSum":
        told = _axes(walk, node, 1)
        at = told[0] if told else -1
    return at % walk.rank(node.inputs[0]) == axis  # pyright: ignore[reportArgumentType]


def _behind(walk: _Walk, node: ir.Node, axis: int) -> bool:
    own = node.attributes.get("axis")
    return axis >= (own.as_int() if own is not None else -1) % walk.rank(node.inputs[0])  # pyright: ignore[reportArgumentType]


def _cuts(walk: _Walk, node: ir.Node, axis: int) -> bool:
    """Another order or number of tokens; a Slice that keeps all in order is none."""
    before, after = walk.facts.shape(node.inputs[0]), walk.facts.shape(node.outputs[0])  # pyright: ignore[reportArgumentType]
    axes, rank = _axes(walk, node, 3), walk.rank(node.inputs[0])  # pyright: ignore[reportArgumentType]
    if before is None or after is None or axes is None or axis not in [a % rank for a in axes]:
        return False
    steps = _axes(walk, node, 4)
    return before[axis] != after[axis] or bool(steps and min(steps) < 0)


def _keeps_order(walk: _Walk, node: ir.Node) -> bool:
    steps = _axes(walk, node, 4)
    return steps is None or min(steps, default=1) > 0


def _picks(walk: _Walk, node: ir.Node, axis: int) -> bool:
    own = node.attributes.get("axis")
    return (own.as_int() if own is not None else 0) % walk.rank(node.inputs[0]) == axis  # pyright: ignore[reportArgumentType]


def _contracts(walk: _Walk, node: ir.Node) -> bool:
    """A product that sums over the tokens of this run alone: no cache has a part in it."""
    a, b = (walk.facts.shape(value) if value is not None else None for value in node.inputs[:2])
    if not a or not b or len(b) < 2 or node.inputs[1] not in walk.content or walk.length is None:
        return False
    return a[-1] == walk.length == b[-2]


Rule = Callable[[_Walk, ir.Node, int], bool]
_RULES: dict[str, Rule] = {
    **dict.fromkeys("Softmax LogSoftmax Hardmax CumSum TopK ArgMax ArgMin LpNormalization".split(), _along),
    **dict.fromkeys("LayerNormalization RMSNormalization SimplifiedLayerNormalization".split(), _behind),
    "Slice": _cuts,
    "Pad": _pads,
    "Gather": _picks,
    "Split": _picks,
    "GatherElements": _picks,
    "ReverseSequence": lambda walk, node, axis: True,
}
"""Operators that may take tokens together, and whether they do along the axis of the tokens."""
