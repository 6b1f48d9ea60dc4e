"""keep-last-logits lets only the last n valid rows reach the language-model head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from ..ir.core.errors import PassRefused, UsageError
from ..ir.core.operators.walks import POSITIONS_TO_EXTREME
from ..ir.interface.analysis import Known, analysis_of, forget
from ..ir.interface.roles import Role
from ..ir.program.contracts.logits import LastRows
from ..ir.rewrite.builder import Builder
from ..ir.rewrite.lm_head import (
    Count,
    InFunction,
    Kept,
    LmHead,
    Rewrite,
    Selector,
    Tokens,
    Valid,
    Validity,
    before_quantization,
    find_head,
    head_tokens,
    kept_rows,
    validity_of,
)
from ..ir.rewrite.ownership import mark_unclaimed
from ..ir.shapes.infer import Facts
from ..ir.states import State
from ..ir.symbolic.dims import Dim, Expr, substitute
from ..ir.symbolic.symbols import symbols_of
from .base import GraphResult, Pass

MANY = 1 << 20  # tokens
MAX_INLINED = 8  # functions inside functions around a head


@dataclass(frozen=True)
class KeepLastLogits(Pass):
    """Selects the last n valid rows of each batch line before the product with the vocabulary.

    Before → after::

        logits = MatMul(hidden, W)              [B, S, V]
        →  rows   = GatherElements(hidden, max(last + 1 - n, 0) + (0 … n-1))
           logits = MatMul(rows, W)             [B, n, V]

    1. The last valid row is the last one that the attention mask's last S columns mark; without a mask, the last one
       with a position ≥ 0; without either, row S - 1 (a plain Slice). A line with fewer valid rows than n gives rows
       0 … n-1, so its last valid row is no longer the last one given. Recorded as an assumption.
    2. The mask over a cache that is written in place tells nothing of the run's rows: positions do.
    3. A graph that keeps its last row already (ArgMax over positions, Slice, index -1, an input that tells how many)
       is widened: its own selection goes, its own ArgMax is used again, inputs that only gave the number go.
    4. Where n is the length itself nothing is selected; a selection that was there goes.
    5. ``symbol=num_logits_to_keep``: an int64 input ``[num_logits_to_keep, 1]`` tells n by its length.
    6. The selection stands before the product, after the final norm; before a QuantizeLinear with a constant scale,
       after a DynamicQuantizeLinear, whose scale depends on all rows.
    7. Heads alone in a local function get their rows before the call; other functions around a head are inlined.

    Rows that are kept are copied, so logits are those of the same rows before. A run of fewer than n tokens keeps all.

    Left alone: graphs that keep n rows already. Refused: no head, several, a head in a branch, operators behind the
    head that mix rows, outputs that need all rows, n beyond a fixed length.

    Attributes:
        n: How many rows; or
        symbol: the name of the input, and of the dimension, that tells how many.
    """

    name: ClassVar[str] = "keep-last-logits"
    preserves: ClassVar[frozenset[Known]] = frozenset({Known.STATES})

    n: int | None = None
    symbol: str | None = None

    def call(self, model: ir.Model) -> GraphResult:
        """Changes one graph; raises UsageError for the options, PassRefused, with nothing changed, for the graph."""
        self._check_options()
        if model.functions:
            opened = _needs_inlining(model, self.name)
            if opened:
                trial = model.clone()
                _open(trial, opened)
                self.call(trial)
                _open(model, opened)
                forget(model)
        return self._call(model)

    def _check_options(self) -> None:
        if (self.n is None) == (self.symbol is None):
            raise UsageError(
                "give n=… or symbol=…, one of them", where=self.name, found=f"n={self.n}, symbol={self.symbol}"
            )
        if self.n is not None and self.n < 1:
            raise UsageError("keeps at least one row", where=self.name, found=f"n={self.n}", wanted="n ≥ 1")
        if self.symbol is not None and not self.symbol.isidentifier():
            raise UsageError("no name for a dimension", where=self.name, found=repr(self.symbol))

    def _call(self, model: ir.Model) -> GraphResult:
        where = f"{self.name}, graph {model.graph.name!r}"
        analysis = analysis_of(model)
        states, roles, facts = analysis.states, analysis.roles, analysis.facts
        head = find_head(model, self.name, states, roles, facts)
        tokens = head_tokens(model, roles, facts)
        if tokens is None:
            raise PassRefused("no input tells how many tokens there are", where=where, wanted="token ids or embeddings")
        kept = before_quantization(kept_rows(head, tokens, facts, where), facts)
        if self._is_done(kept, tokens, roles, where):
            return self._declare(model, head, tokens)
        validity = _validity(model, kept, tokens, states, roles, facts)
        rewrite = Rewrite.plan(head, kept, tokens, facts, where)
        idle = {value for value in model.graph.inputs if not value.uses()}
        count = self._count(model, roles, where)
        rewrite.apply(Selector(Builder(model.graph, self.name), tokens, validity, count))
        gone = _drop_count(model, roles, idle, count)
        return GraphResult(
            model,
            True,
            counts={"heads": 1, "widened": int(kept.selects), **({"inputs": gone} if gone else {})},
            contracts=(_kept(head, count, validity, tokens),),
        )

    def _declare(self, model: ir.Model, head: LmHead, tokens: Tokens) -> GraphResult:
        """The rows are right already; a type that does not say so is corrected."""
        rows = self.n if self.n is not None else self.symbol
        said = list(head.output.shape) if head.output.shape is not None else []
        note = f"{head.output.name} has {rows} rows already"
        if len(said) == 2 or [str(dim) for dim in said[1:]] == [str(rows), str(head.vocabulary)]:
            return GraphResult(model, False, notes=(note,))
        batch = tokens.batch if isinstance(tokens.batch, int) else str(tokens.batch)
        head.output.shape = ir.Shape([batch, rows, head.vocabulary])
        return GraphResult(model, True, counts={"types": 1}, notes=(note,))

    def _is_done(self, kept: Kept, tokens: Tokens, roles: dict[str, Role], where: str) -> bool:
        """True where n rows are kept already; PassRefused where there are never so many."""
        if self.symbol is not None:
            given = next((value for value in kept.given_by if value.name == self.symbol), None)
            shaped = given is not None and given.shape is not None and len(given.shape) == 2
            return shaped and roles.get(self.symbol) is Role.LOGITS_TO_KEEP
        assert self.n is not None, "one of the options is given"
        if isinstance(tokens.length, int) and self.n > tokens.length:
            raise PassRefused(
                "the graph takes fewer tokens than rows are to be kept",
                where=where,
                found=f"n={self.n}, {tokens.length} tokens a run",
                wanted="a symbolic length, or n up to the length",
                hint="Export the graph with a symbolic sequence length.",
            )
        return _of_many(kept.count, tokens.length) == self.n and not (kept.selects and self.n == tokens.length)

    def _count(self, model: ir.Model, roles: dict[str, Role], where: str) -> Count:
        """The number, or the input that tells it: made here, unless the graph has it."""
        if self.symbol is None:
            return Count(number=self.n)
        present = next((value for value in model.graph.inputs if value.name == self.symbol), None)
        counts = present is not None and roles.get(self.symbol) is Role.LOGITS_TO_KEEP
        if present is not None and counts and present.shape is not None and len(present.shape) == 2:
            return Count(source=present, symbol=self.symbol)
        taken = {value.name for node in model.graph for value in node.outputs} | set(model.graph.initializers)
        if (present is not None and not counts) or self.symbol in taken or self.symbol in symbols_of(model):
            raise UsageError("this name is taken in the graph", where=where, found=self.symbol, hint="Choose another.")
        if present is not None:
            model.graph.inputs.remove(present)
            present.name = f"{self.symbol}/scalar"
        given_by = ir.val(self.symbol, ir.DataType.INT64, ir.Shape([self.symbol, 1]))
        model.graph.inputs.append(given_by)
        return Count(source=given_by, symbol=self.symbol)


def _of_many(count: Dim | None, length: Dim) -> Dim | None:
    """How many rows are kept of a run that has enough tokens."""
    plenty = {str(length): MANY} if isinstance(length, Expr) and length.is_symbol else {}
    return substitute(count, plenty) if count is not None else None


def _validity(
    model: ir.Model, kept: Kept, tokens: Tokens, states: Sequence[State], roles: dict[str, Role], facts: Facts
) -> Validity:
    """What tells the last row: the graph's own ArgMax over positions where it has one, the end where it takes that."""
    fresh = validity_of(model, tokens, states, roles, facts)
    if not kept.selects:
        return fresh
    if kept.last is None:
        return Validity(Valid.ALL)
    operand = kept.last.producer()
    source = operand.inputs[0] if operand is not None else None
    while source is not None and (node := source.producer()) is not None and node.op_type in POSITIONS_TO_EXTREME:
        source = node.inputs[0]
    if source is not None and source.is_graph_input() and roles.get(source.name or "") is Role.POSITIONS:
        return Validity(Valid.LARGEST, source, last=kept.last)
    return fresh


def _drop_count(model: ir.Model, roles: dict[str, Role], idle: set[ir.Value], count: Count) -> int:
    """Removes inputs that gave how many rows to keep and that nothing reads any more."""
    before = len(model.graph.inputs)
    model.graph.inputs[:] = [
        value
        for value in model.graph.inputs
        if value.uses()
        or value in idle
        or value is count.source
        or roles.get(value.name or "") is not Role.LOGITS_TO_KEEP
    ]
    return before - len(model.graph.inputs)


def _kept(head: LmHead, count: Count, validity: Validity, tokens: Tokens) -> LastRows:
    return LastRows(
        output=head.output.name or "",
        rows=count.number,
        symbol=count.symbol,
        how=validity.how.value,
        source=validity.source.name or "" if validity.source is not None else "",
        tokens=tokens.value.name or "",
    )


def _needs_inlining(model: ir.Model, owner: str) -> set[ir.OperatorIdentifier]:
    """The functions around the head that hold more than the head; found on a copy, as deep as they are nested."""
    found: set[ir.OperatorIdentifier] = set()
    trial = model
    for _ in range(MAX_INLINED):
        known = analysis_of(trial)
        try:
            find_head(trial, owner, known.states, known.roles, known.facts)
        except InFunction as inside:
            found |= inside.names
            trial = model.clone()
            _open(trial, found)
            continue
        return found
    return found


def _open(model: ir.Model, names: set[ir.OperatorIdentifier]) -> None:
    """Inlines the functions; nodes that come with them carry the pass's name like all that it adds."""
    before = set(model.graph)
    InlinePass(criteria=lambda function: function.identifier() in names)(model)
    mark_unclaimed((node for node in model.graph if node not in before), KeepLastLogits.name)
