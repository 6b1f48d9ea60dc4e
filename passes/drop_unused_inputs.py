"""drop-unused-inputs: graph inputs that nothing reads leave the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from .base import GraphResult, Pass


@dataclass(frozen=True)
class DropUnusedInputs(Pass):
    """Removes the graph inputs that nothing reads, for compilers that ask for every input or drop them by themselves.

    Before → after::

        (input_ids, attention_mask, num_logits_to_keep) => logits = f(input_ids, attention_mask)
        (input_ids, attention_mask) => logits = f(input_ids, attention_mask)

    1. An input that no node reads and that is no output goes; the summary names it.

    Left alone: inputs that are handed out as they are. The host has to leave out what was removed.
    """

    name: ClassVar[str] = "drop-unused-inputs"

    def call(self, model: ir.Model) -> GraphResult:
        """Removes them from one graph."""
        inputs = model.graph.inputs
        gone = [value for value in inputs if not value.uses() and not value.is_graph_output()]
        for value in gone:
            inputs.remove(value)
        if not gone:
            return GraphResult(model, False)
        names = ", ".join(value.name or "" for value in gone)
        return GraphResult(model, True, counts={"inputs": len(gone)}, notes=(f"removed {names}, which nothing read",))
