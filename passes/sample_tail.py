"""sample-tail draws tokens inside the graph: temperature, bounds, penalties and bitmasks come in, tokens go out."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from ..ir.core.errors import PassRefused, UsageError
from ..ir.interface.analysis import GraphAnalysis, Known, analysis_of
from ..ir.interface.roles import Role
from ..ir.program.contracts.sampling import (
    ACCEPTED,
    BATCH,
    BITMASKS,
    LAST,
    LINES,
    NEUTRAL,
    NEXT,
    PROBS,
    RANDOM,
    ROWS,
    TOKENS,
    SampledTokens,
)
from ..ir.rewrite.builder import Builder
from ..ir.rewrite.lm_head import find_logits
from ..ir.rewrite.names import names_in
from ..ir.rewrite.sampling import Bounds, Draw, Penalties, Said
from ..ir.symbolic.symbols import dims_of
from .base import GraphResult, Pass

TOKENS_OUT = "next_tokens"
OPSET = 16  # ScatterElements adds since then
WORD = 32
FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64
BOUNDS = ("temperatures", "top_ks", "top_ps", "min_ps", RANDOM)


class Penalty(enum.Enum):
    """What lowers the logits of what was said."""

    REPETITION = "repetition"
    PRESENCE = "presence"
    FREQUENCY = "frequency"


@dataclass(frozen=True)
class SampleTail(Pass):
    """Draws a token for each row of logits, so that a run hands over a few integers in place of whole vocabularies.

    Before → after::

        logits float [B, n, V]   →   next_tokens int64 [B, n]
          beside temperatures, top_ks, top_ps, min_ps [B, 1] and random_numbers [B, n] as inputs;
          n > 1:   accepted_counts, last_tokens int64 [B, 1]: how many proposals stand, and the token behind them
          penalties: last_accepted_output_tokens [B, S], past_X_penalty_buffer [B, V] (and out),
                     X_penalties [B, 1]
          bitmask:  token_bitmasks int32 [B, n, V / 32]

    1. A draw is that of `generate --sampler host`: the ``top_k`` likeliest, of them ``top_ks``, those of probability
       ``top_ps``, those not below ``min_ps`` times the likeliest, and one random number in [0, 1) a row. Temperature 0
       takes the likeliest.
    2. Behind keep-last-logits of K + 1 rows a proposal stands where the target draws the same: the tokens follow the
       target's distribution exactly, whatever proposed them.
    3. Buffers count what was accepted: rejected proposals never enter them, and within a run a row counts the
       proposals before it. A run with more tokens than rows of logits reads a prompt: it enters the repetition buffer,
       from position 0 on anew. Names are QEfficient's; its random numbers are one a candidate, the same in all rows.
    4. Bitmasks are packed as xgrammar does: bit ``j`` of word ``i`` allows token ``32 i + j``.

    Left alone: every other output. Refused: a graph without logits, or without positions where penalties are asked
    for; ``top_k`` beyond the vocabulary; opsets below 16.

    Attributes:
        top_k: How many of the likeliest a token is drawn from at most.
        penalties: repetition, presence, frequency.
        bitmask: Tokens may be forbidden, row by row.
        probs: The probabilities that are drawn from leave too.
        precise: Sums in float64, which give the host's tokens; false for compilers that have float32 alone.
    """

    name: ClassVar[str] = "sample-tail"
    preserves: ClassVar[frozenset[Known]] = frozenset({Known.STATES})

    top_k: int = 512
    penalties: tuple[Penalty, ...] = ()
    bitmask: bool = False
    probs: bool = False
    precise: bool = True

    def __post_init__(self) -> None:
        """UsageError for no token, or a penalty that stands twice."""
        if self.top_k < 1:
            raise UsageError("draws from at least one token", where=self.name, found=f"top_k={self.top_k}")
        if len(set(self.penalties)) < len(self.penalties):
            raise UsageError(
                "a penalty stands twice", where=self.name, found=", ".join(p.value for p in self.penalties)
            )

    def call(self, model: ir.Model) -> GraphResult:
        """Changes one graph; raises UsageError or PassRefused, with nothing changed."""
        where = f"{self.name}, graph {model.graph.name!r}"
        known = analysis_of(model)
        if any(role is Role.SAMPLING for role in known.roles.values()):
            return GraphResult(model, False, notes=("tokens are drawn in the graph already",))
        logits, vocabulary = find_logits(model, self.name, known.states, known.roles, known.facts)
        if self.top_k > vocabulary:
            raise UsageError(
                "more tokens than the vocabulary has", where=where, found=self.top_k, wanted=f"<= {vocabulary}"
            )
        tail = _Tail.of(model, known, logits, vocabulary, self, where)
        tail.write()
        contract = tail.contract()
        return GraphResult(
            model, True, counts={"inputs": len(tail.inputs), "outputs": len(tail.outputs)}, contracts=(contract,)
        )


@dataclass(eq=False)
class _Tail:
    """What is written into one graph."""

    model: ir.Model
    logits: ir.Value
    vocabulary: int
    options: SampleTail
    tokens: ir.Value
    positions: ir.Value | None
    lines: ir.Value | None
    rows: int | None
    inputs: dict[str, ir.Value]
    outputs: dict[str, ir.Value]
    sizes: dict[str, tuple[int | str, ...]]
    symbol: str

    @classmethod
    def of(
        cls, model: ir.Model, known: GraphAnalysis, logits: ir.Value, vocabulary: int, options: SampleTail, where: str
    ) -> _Tail:
        """Everything is decided here; raises PassRefused for what cannot be written."""
        by_role = {
            role: value for value in reversed(model.graph.inputs) for role in (known.roles.get(value.name or ""),)
        }
        tokens, positions = by_role.get(Role.TOKEN_IDS), by_role.get(Role.POSITIONS)
        ranks = {len(value.shape or ()) for value in (tokens, logits) if value is not None}
        if tokens is None or ranks != {2, 3}:
            raise PassRefused(
                "tokens [batch, n] and logits [batch, n, vocabulary] are wanted", where=where, found=str(ranks)
            )
        if options.penalties and (positions is None or len(positions.shape or ()) != 2):
            raise PassRefused("no input tells where tokens stand", where=where, wanted="position_ids [batch, tokens]",
                              hint="Leave penalties out, or put convert-states{to=scatter} first.")  # fmt: skip
        opset = model.graph.opset_imports.get("", 0)
        if opset < OPSET:
            raise PassRefused("the opset is too old for a draw", where=where, found=opset, wanted=f">= {OPSET}",
                              hint=f"Put fix-opset{{version={OPSET}}} before this pass.")  # fmt: skip
        rows = (known.facts.shape(logits) or dims_of(logits) or (None, None))[1]  # one, whatever an exporter calls it
        flat = positions if positions is not None and len(positions.shape or ()) == 2 else None
        tail = cls(
            model, logits, vocabulary, options, tokens, flat,
            by_role.get(Role.BATCH_INDEX), rows if isinstance(rows, int) else None, {}, {}, {},
            (by_role[Role.LOGITS_TO_KEEP].name or "") if Role.LOGITS_TO_KEEP in by_role else "",
        )  # fmt: skip
        tail._enter(where)
        return tail

    def _enter(self, where: str) -> None:
        """Makes the inputs, which enter the graph when all is known."""
        taken, words = set(names_in(self.model.graph)), -(-self.vocabulary // WORD)
        each: dict[str, tuple[int | str, ...]] = {}
        if self.options.penalties:
            each[LAST] = (BATCH, TOKENS)
        for penalty in self.options.penalties:
            each[f"past_{penalty.value}_penalty_buffer"] = (LINES, self.vocabulary)
            each[f"{penalty.value}_penalties"] = (BATCH, 1)
        each |= {kind: (BATCH, ROWS if kind == RANDOM else 1) for kind in BOUNDS}
        if self.options.bitmask:
            each[BITMASKS] = (BATCH, ROWS, words)
        made = [
            *each,
            *(f"{kind}_RetainedState" for kind in each if kind.startswith("past_")),
            TOKENS_OUT,
            ACCEPTED,
            NEXT,
            PROBS,
        ]
        if clash := taken.intersection(made):
            raise UsageError("this name is taken in the graph", where=where, found=min(clash))
        for kind, sizes in each.items():
            dtype = ir.DataType.from_numpy(_numpy(kind))
            self.inputs[kind] = ir.Value(
                name=kind, type=ir.TensorType(dtype), shape=ir.Shape([self._dim(s) for s in sizes])
            )
        self.sizes = each

    def _dim(self, size: int | str) -> int | str | None:
        if isinstance(size, int):
            return size
        tokens, logits = dims_of(self.tokens) or (None, None), dims_of(self.logits) or (None, None)
        state = self._caches()
        kept = next((v for v in self.model.graph.inputs if v.name == self.symbol), None) if self.symbol else None
        asked = (dims_of(kept) or (None,))[0] if kept is not None and self.rows is None else None
        rows = self.rows if self.rows is not None else logits[1] if asked is None else asked
        known: Mapping[str, Any] = {BATCH: tokens[0], TOKENS: tokens[1], ROWS: rows, LINES: state or tokens[0]}
        found = known[size]
        return found if isinstance(found, int) or found is None else str(found)

    def _caches(self) -> Any:
        """The batch of caches that a batch index chooses lines of."""
        if self.lines is None:
            return None
        states = [
            state for state in analysis_of(self.model).states if state.selector is not None and state.input is not None
        ]
        return (dims_of(states[0].input) or (None,))[0] if states and states[0].input is not None else None

    def write(self) -> None:
        """Writes the tail behind the logits; nothing is refused from here on."""
        graph, options = self.model.graph, self.options
        graph.inputs.extend(self.inputs.values())
        builder = Builder(graph, SampleTail.name)
        draw = Draw(builder, ir.DataType.DOUBLE if options.precise else FLOAT, options.top_k)
        rows = builder.cast(self.logits, FLOAT, "float")
        scores = self._penalized(builder, rows) if options.penalties else rows
        if options.bitmask:
            scores = draw.masked(scores, self.inputs[BITMASKS], self.vocabulary)
        tokens, ids, weights = draw.tokens(scores, Bounds(*(self.inputs[kind] for kind in BOUNDS)))
        drawn = {TOKENS_OUT: builder.op("Identity", [tokens], TOKENS_OUT, exact=True)}
        if self.rows != 1:
            drawn |= zip((ACCEPTED, NEXT), self._accepted(builder, draw, tokens, rows), strict=True)
        if options.probs:
            probs = draw.probabilities(ids, weights, scores)
            drawn[PROBS] = builder.op("Identity", [probs], PROBS, None, None, FLOAT, exact=True)
        builder.place_after(self.logits)
        self.outputs = drawn | self.outputs
        self._leave()

    def _accepted(self, builder: Builder, draw: Draw, tokens: ir.Value, rows: ir.Value) -> list[ir.Value]:
        found = draw.accepted(tokens, self.tokens, self.positions, rows)
        return [
            builder.op("Identity", [value], name, exact=True)
            for value, name in zip(found, (ACCEPTED, NEXT), strict=True)
        ]

    def _penalized(self, builder: Builder, rows: ir.Value) -> ir.Value:
        assert self.positions is not None, "asked before"
        ids, positions = (builder.cast(value, INT64, f"{value.name}/int64") for value in (self.tokens, self.positions))
        lines = builder.cast(self.lines, INT64, "lines") if self.lines is not None else None
        said = Said(self.inputs[LAST], ids, positions, rows, self.vocabulary, lines, self.rows != 1)
        penalties = Penalties(builder, said)
        scores = rows
        for penalty in Penalty:
            if penalty not in self.options.penalties:
                continue
            past, size = self.inputs[f"past_{penalty.value}_penalty_buffer"], self.inputs[f"{penalty.value}_penalties"]
            now, out = penalties.carried(past, prompt=penalty is Penalty.REPETITION)
            self.outputs[f"{past.name}_RetainedState"] = out
            by_row = penalties.by_row(now)
            if penalty is Penalty.REPETITION:
                scores = penalties.repetition(scores, by_row, size)
            else:
                scores = penalties.less(scores, by_row, size, penalty.value)
        return scores

    def _leave(self) -> None:
        """The outputs take the logits' place, with their shapes."""
        graph = self.model.graph
        batch, count = self._dim(BATCH), self._dim(ROWS)
        shapes = {
            TOKENS_OUT: [batch, count],
            ACCEPTED: [batch, 1],
            NEXT: [batch, 1],
            PROBS: [batch, count, self.vocabulary],
        }
        for name, value in self.outputs.items():
            value.shape = ir.Shape(shapes.get(name) or [self._dim(LINES), self.vocabulary])
        at = list(graph.outputs).index(self.logits)
        graph.outputs[at : at + 1] = list(self.outputs.values())

    def contract(self) -> SampledTokens:
        """What the tail says of itself."""
        also = tuple(name for name in self.outputs if name != TOKENS_OUT)
        return SampledTokens(
            ids=TOKENS_OUT, logits=self.logits.name or "", top_k=self.options.top_k, kinds=tuple(self.inputs),
            inputs=tuple(self.inputs), sizes=tuple(self.sizes.values()), tokens=self.tokens.name or "", rows=self.rows,
            rows_from=self.symbol, also=also, also_kinds=tuple(name.removesuffix("_RetainedState") for name in also),
            positions=(self.positions.name or "") if self.positions is not None else "",
        )  # fmt: skip


def _numpy(kind: str) -> Any:
    import numpy as np

    return np.dtype(NEUTRAL[kind][0])
