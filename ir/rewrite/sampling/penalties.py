"""What was said before lowers or raises logits: buffers carry it from run to run, and proposals count as said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..builder import Builder

BOOL, FLOAT, INT32, INT64 = ir.DataType.BOOL, ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64


@dataclass(eq=False)
class Said:
    """The tokens of a run, on which penalties rest.

    Attributes:
        last: INT64 ``[batch, tokens]``: what was accepted since the run before; -1 is none.
        ids: INT64 ``[batch, tokens]``: the run's own tokens.
        positions: INT64 ``[batch, tokens]``: -1 is padding.
        rows: The logits, ``[batch, rows, V]``.
        vocabulary: V.
        lines: Which line of the buffers each text has, ``[batch, 1]``; None where the first is the first.
        proposes: Whether there may be several rows: the anchor's, then one a proposal.
    """

    last: ir.Value
    ids: ir.Value
    positions: ir.Value
    rows: ir.Value
    vocabulary: int
    lines: ir.Value | None
    proposes: bool


class Penalties:
    """Writes the buffers' updates and the penalties of one graph."""

    def __init__(self, builder: Builder, said: Said) -> None:
        self.build, self.said = builder, said
        op, ints = builder.op, builder.ints
        self.zero = ints(0, "zero")
        # a prompt's run has more tokens than rows of logits, as in QEfficient 1.21, transformers/sampler/sampler.py
        sizes = [builder.scalar((said.ids, 1), "tokens"), builder.scalar((said.rows, 1), "rows")]
        self.reads = op("Greater", sizes, "reads", None, (), BOOL)
        self.writes = op("Not", [self.reads], "decodes", None, (), BOOL)
        real = self._truth("GreaterOrEqual", [said.positions, self.zero], "real")
        prompt = op("Where", [real, said.ids, ints(-1, "none")], "prompt")
        first = op("Gather", [said.positions, ints([0], "first")], "first", {"axis": 1})
        goes_on = self._truth("Not", [self._truth("Equal", [first, self.zero], "begins")], "goes_on")
        self.kept = self._truth("Or", [self.writes, goes_on], "kept")
        none = op("Where", [self.reads, ints(-1, "none"), said.last], "answered")
        self.answered = self._counts(none, "answered/counts")
        self.heard = self._counts(op("Where", [self.reads, prompt, said.last], "heard"), "heard/counts")
        self.ahead = self._ahead(real) if said.proposes else None

    def _truth(self, op_type: str, inputs: Sequence[ir.Value], name: str) -> ir.Value:
        return self.build.op(op_type, inputs, name, None, None, BOOL)

    def _real(self, op_type: str, inputs: Sequence[ir.Value], name: str) -> ir.Value:
        return self.build.op(op_type, inputs, name, None, None, FLOAT)

    def _counts(self, tokens: ir.Value, name: str) -> ir.Value:
        """INT32 ``[batch, V]``: how often each token stands among ``tokens``, -1 nowhere."""
        op = self.build.op
        there = self._truth("GreaterOrEqual", [tokens, self.zero], f"{name}/there")
        ones = op("Cast", [there], f"{name}/ones", {"to": int(INT32)}, None, INT32)
        places = op("Max", [tokens, self.zero], f"{name}/places")
        shape = self.build.dims([(self.said.rows, 0), self.said.vocabulary], "buffer")
        empty = self._empty(shape)
        return op("ScatterElements", [empty, places, ones], name, {"axis": 1, "reduction": "add"}, None, INT32)

    def _empty(self, shape: ir.Value) -> ir.Value:
        zero = ir.Tensor(np.zeros(1, np.int32), name="value")
        return self.build.op("ConstantOfShape", [shape], "empty", {"value": zero}, None, INT32)

    def _ahead(self, real: ir.Value) -> ir.Value:
        """INT32 ``[batch, rows, V]``: how often the proposals before each row, if they stood, would have said a token.

        Row ``r`` is only asked where all proposals before it were accepted: then they are what was said.
        """
        build, op, said = self.build, self.build.op, self.said
        one, rows = build.ints([1], "one"), build.dims([(said.rows, 1)], "rows")
        bounds = [one, rows, one]  # starts, ends, axes
        ids, there = (
            op("Slice", [v, *bounds], n, None, None, t)
            for v, n, t in ((said.ids, "proposals", INT64), (real, "proposed", BOOL))
        )
        number = build.count((said.rows, 1), "rows/numbers")
        before = op("Slice", [number, one, rows], "proposals/numbers")
        reached = self._truth(
            "LessOrEqual", [build.unsqueeze(before, [0], "before"), build.unsqueeze(number, [1], "row")], "reached"
        )
        stood = self._truth("And", [build.unsqueeze(there, [1], "proposed/rows"), reached], "stood")
        counted = self._truth("And", [stood, self.writes], "counted")
        ones = op("Cast", [counted], "ahead/ones", {"to": int(INT32)}, None, INT32)
        tokens = op("Max", [build.unsqueeze(ids, [1], "proposals/rows"), self.zero], "proposals/places")
        places = op("Expand", [tokens, op("Shape", [ones], "ahead/shape")], "ahead/places")
        shape = build.dims([(said.rows, 0), (said.rows, 1), said.vocabulary], "ahead/buffer")
        return op(
            "ScatterElements", [self._empty(shape), places, ones], "ahead", {"axis": 2, "reduction": "add"}, None, INT32
        )

    def carried(self, past: ir.Value, *, prompt: bool) -> tuple[ir.Value, ir.Value]:
        """A buffer's content for the run's texts, ``[batch, V]``, and all its lines as they leave."""
        op, name = self.build.op, str(past.name)
        mine = self._mine(past)
        kept = self.kept if prompt else self.writes
        if past.dtype is BOOL:
            counts = self.heard if prompt else self.answered
            new = self._truth("Greater", [counts, self._int32_zero()], f"{name}/new")
            old = self._truth("And", [mine, kept], f"{name}/old")
            now = self._truth("Or", [old, new], f"{name}/now")
        else:
            factor = op("Cast", [kept], f"{name}/kept", {"to": int(INT32)}, None, INT32)
            old = op("Mul", [mine, factor], f"{name}/old", None, None, INT32)
            now = op("Add", [old, self.answered], f"{name}/now", None, None, INT32)
        if self.said.lines is None:
            return now, op("Identity", [now], f"{name}_RetainedState", None, None, past.dtype, exact=True)
        return now, op(
            "ScatterND", [past, self.said.lines, now], f"{name}_RetainedState", None, None, past.dtype, exact=True
        )

    def _mine(self, past: ir.Value) -> ir.Value:
        if self.said.lines is None:
            return past
        return self.build.op("GatherND", [past, self.said.lines], f"{past.name}/mine", None, None, past.dtype)

    def _int32_zero(self) -> ir.Value:
        return self.build.share(
            ("int32", 0), lambda: self.build.constant(ir.Tensor(np.asarray(0, np.int32)), "nothing")
        )

    def by_row(self, now: ir.Value) -> ir.Value:
        """A buffer's content with what proposals say before each row: ``[batch, 1 or rows, V]``."""
        op, wide, ahead = self.build.op, self.build.unsqueeze(now, [1], f"{now.name}/rows"), self.ahead
        if ahead is None:
            return wide
        if now.dtype is BOOL:
            said = self.build.share(
                ("ahead", "said"),
                lambda: self._truth("Greater", [ahead, self._int32_zero()], "ahead/said"),
            )
            return self._truth("Or", [wide, said], f"{now.name}/said")
        return op("Add", [wide, ahead], f"{now.name}/said", None, None, INT32)

    def repetition(self, logits: ir.Value, said: ir.Value, penalty: ir.Value) -> ir.Value:
        """Positive logits of what was said are divided, others multiplied."""
        factor = self.build.unsqueeze(penalty, [2], "repetition/factor")
        zero = self.build.share(("float", 0), self._float_zero)
        above = self._truth("Greater", [logits, zero], "repetition/above")
        sides = [
            self._real("Div", [logits, factor], "repetition/div"),
            self._real("Mul", [logits, factor], "repetition/mul"),
        ]
        scaled = self._real("Where", [above, *sides], "repetition/scaled")
        return self._real("Where", [said, scaled, logits], "repetition")

    def _float_zero(self) -> ir.Value:
        return self.build.constant(ir.Tensor(np.asarray(0, np.float32)), "nothing/float")

    def less(self, logits: ir.Value, said: ir.Value, penalty: ir.Value, name: str) -> ir.Value:
        """Logits less the penalty, once or as often as it was said."""
        op = self.build.op
        times = op("Cast", [said], f"{name}/times", {"to": int(FLOAT)}, None, FLOAT)
        taken = op(
            "Mul", [times, self.build.unsqueeze(penalty, [2], f"{name}/size")], f"{name}/taken", None, None, FLOAT
        )
        return self._real("Sub", [logits, taken], name)
