"""argmax-tail lets token ids leave the graph in place of logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ..ir.core.errors import UsageError
from ..ir.core.operators import of
from ..ir.interface.analysis import Known, analysis_of
from ..ir.program.contracts.logits import BestTokens
from ..ir.rewrite.builder import Builder
from ..ir.rewrite.lm_head import find_logits
from ..ir.shapes.infer.declared import is_fresh
from ..ir.symbolic.dims import Dim
from .base import GraphResult, Pass

IDS, VALUES = "token_ids", "token_values"


@dataclass(frozen=True)
class ArgmaxTail(Pass):
    """Appends the choice of the best tokens, so that a run hands over a few integers in place of whole vocabularies.

    Before → after::

        logits  float [B, n, V]      →   token_ids  int64 [B, n]           top_k=1: ArgMax
                                     →   token_ids  int64 [B, n, k],
                                         token_values float [B, n, k]      top_k=k: TopK, largest first

    1. Among equal logits the lowest id comes first, as numpy's argmax has it.
    2. The logits stay inside the graph; put keep-last-logits first, so that only needed rows are compared.

    Left alone: every other output. Refused: a graph without logits, or k beyond the vocabulary.

    Attributes:
        top_k: How many tokens a row.
    """

    name: ClassVar[str] = "argmax-tail"
    preserves: ClassVar[frozenset[Known]] = frozenset({Known.STATES})

    top_k: int = 1

    def call(self, model: ir.Model) -> GraphResult:
        """Changes one graph; raises PassRefused where no output holds logits."""
        if self.top_k < 1:
            raise UsageError("chooses at least one token", where=self.name, found=f"top_k={self.top_k}")
        where = f"{self.name}, graph {model.graph.name!r}"
        known = analysis_of(model)
        if _is_done(model):
            return GraphResult(model, False, notes=("token ids leave the graph already",))
        facts = known.facts
        logits, vocabulary = find_logits(model, self.name, known.states, known.roles, facts)
        if self.top_k > vocabulary:
            raise UsageError(
                "more tokens than the vocabulary has", where=where, found=self.top_k, wanted=f"≤ {vocabulary}"
            )
        outputs = self._tail(model, logits)
        known = facts.shape(logits)  # what it holds at run time; the declared rows were the output's contract
        logits.shape = ir.Shape([_text(dim) for dim in known]) if known is not None else None
        at = list(model.graph.outputs).index(logits)
        model.graph.outputs[at : at + 1] = outputs
        names = [value.name or "" for value in (*outputs, logits)]
        best = BestTokens(ids=names[0], logits=names[-1], k=self.top_k, values=names[1] if len(outputs) > 1 else "")
        return GraphResult(model, True, counts={"outputs": 1}, contracts=(best,))

    def _tail(self, model: ir.Model, logits: ir.Value) -> list[ir.Value]:
        """The new outputs: ids, and for more than one token a row their values."""
        builder = Builder(model.graph, self.name)
        rows = list(logits.shape[:-1]) if logits.shape is not None else []
        ids_name, values_name = _free(model, IDS), _free(model, VALUES)
        if self.top_k == 1:
            ids = builder.op("ArgMax", [logits], "ids", {"axis": -1, "keepdims": 0})
            ids.shape, ids.name = ir.Shape(rows), ids_name
            outputs = [ids]
        else:
            values, ids = builder.ops("TopK", [logits, builder.ints([self.top_k], "k")], "best", 2, {"axis": -1})
            values.type, ids.type = ir.TensorType(_dtype(logits)), ir.TensorType(ir.DataType.INT64)
            for value, name in ((values, values_name), (ids, ids_name)):
                value.shape, value.name = ir.Shape([*rows, self.top_k]), name
            outputs = [ids, values]
        builder.place_after(logits)
        return outputs


def _dtype(value: ir.Value) -> ir.DataType:
    return value.dtype or ir.DataType.FLOAT


def _text(dim: Dim) -> int | str | None:
    return dim if isinstance(dim, int) else None if is_fresh(dim) else str(dim)


def _is_done(model: ir.Model) -> bool:
    """True where an integer output is the choice of an ArgMax or TopK over the last axis of float rows."""
    for value in model.graph.outputs:
        node = value.producer()
        if node is not None and of(node).tells.get(0) == "extreme" and value.dtype is ir.DataType.INT64:
            axis = node.attributes.get("axis")
            if axis is not None and axis.as_int() == -1:
                return True
    return False


def _free(model: ir.Model, wish: str) -> str:
    taken = {value.name for node in model.graph for value in node.outputs} | set(model.graph.initializers)
    taken |= {value.name for value in model.graph.inputs}
    name, number = wish, 1
    while name in taken:
        number += 1
        name = f"{wish}_{number}"
    return name
