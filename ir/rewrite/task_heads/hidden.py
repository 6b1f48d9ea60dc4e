"""Finds the hidden rows of a graph, one for each token: an output, or what enters the language-model head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ...core.errors import PassRefused, UnknownNameError
from ...interface.analysis import GraphAnalysis
from ...shapes.dtypes import dtype_of
from ...shapes.infer import Facts
from ..lm_head import Tokens, find_head, head_tokens, kept_rows


@dataclass(eq=False)
class Hidden:
    """``rows`` is ``[batch, tokens, width]``; ``output`` is the graph output that it, or the head behind it, gives."""

    rows: ir.Value
    output: ir.Value
    tokens: Tokens
    width: int
    dtype: ir.DataType

    @property
    def inside(self) -> bool:
        """True where a head stands between the rows and the output."""
        return self.rows is not self.output


def find_hidden(model: ir.Model, owner: str, known: GraphAnalysis, chosen: str | None = None) -> Hidden:
    """The hidden rows of ``chosen``, else of the one output that holds some, else those that reach the one head.

    Raises:
        UnknownNameError: ``chosen`` is no output.
        PassRefused: no rows, several outputs of them, or no tokens.
    """
    where, facts = f"{owner}, graph {model.graph.name!r}", known.facts
    tokens = head_tokens(model, known.roles, facts)
    if tokens is None:
        raise PassRefused("no input tells how many tokens there are", where=where, wanted="token ids or embeddings")
    carried = {state.output for state in known.states}
    outputs = [value for value in model.graph.outputs if value not in carried]
    if chosen is not None:
        outputs = [value for value in outputs if value.name == chosen]
        if not outputs:
            raise UnknownNameError("output", chosen, [value.name or "" for value in model.graph.outputs], where=where)
    fitting = [value for value in outputs if _width(value, tokens, facts)]
    logits = _head_output(model, owner, known) if chosen is None and fitting else None
    rows = [value for value in fitting if value is not logits]
    if len(rows) == 1:
        return _hidden(rows[0], rows[0], tokens, facts)
    if rows:
        raise PassRefused(
            "several outputs hold hidden rows", where=where, found=", ".join(str(value.name) for value in rows),
            wanted="one of them", hint=f"Choose it: from={rows[0].name}.",
        )  # fmt: skip
    return _before_head(model, owner, known, tokens, outputs)


def _before_head(
    model: ir.Model, owner: str, known: GraphAnalysis, tokens: Tokens, outputs: Sequence[ir.Value]
) -> Hidden:
    """The rows that a language-model head multiplies, where there is one."""
    where = f"{owner}, graph {model.graph.name!r}"
    try:
        head = find_head(model, owner, known.states, known.roles, known.facts)
        rows = kept_rows(head, tokens, known.facts, where).full
    except PassRefused as error:
        raise PassRefused(
            "no output holds hidden rows, and no head is found that would lead to them", where=where,
            found="; ".join(f"{value.name} {_shown(value, known.facts)}" for value in outputs) or "only states",
            wanted=f"float rows [{tokens.batch}, {tokens.length}, width]",
            hint="Export the model without its task head, or choose an output: from=NAME.",
        ) from error  # fmt: skip
    if head.output not in outputs:
        raise PassRefused("this output holds no hidden rows", where=where, found=outputs[0].name)
    return _hidden(rows, head.output, tokens, known.facts)


def _hidden(rows: ir.Value, output: ir.Value, tokens: Tokens, facts: Facts) -> Hidden:
    """With the type that the rows have, though a value inside need not declare one."""
    width = (facts.shape(rows) or (0,))[-1]
    assert isinstance(width, int), "rows that are found have a width"
    return Hidden(rows, output, tokens, width, rows.dtype or dtype_of(rows) or output.dtype or ir.DataType.FLOAT)


def _head_output(model: ir.Model, owner: str, known: GraphAnalysis) -> ir.Value | None:
    try:
        return find_head(model, owner, known.states, known.roles, known.facts).output
    except PassRefused:
        return None


def _width(value: ir.Value, tokens: Tokens, facts: Facts) -> int:
    """The last dimension of rows of the tokens; 0 for what is none."""
    shape = facts.shape(value)
    if shape is None or len(shape) != 3 or value.dtype is None or not value.dtype.is_floating_point():
        return 0
    fits = shape[:2] == (tokens.batch, tokens.length)
    return shape[2] if fits and isinstance(shape[2], int) else 0


def _shown(value: ir.Value, facts: Facts) -> str:
    shape = facts.shape(value)
    return "[?]" if shape is None else f"[{', '.join(map(str, shape))}]"
