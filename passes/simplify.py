"""Folds shape arithmetic and everything else that is known before the run, and drops what nothing needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ..ir.core.errors import PassRefused
from ..ir.rewrite.simplify import simplify_round
from .base import GraphResult, Pass


@dataclass(frozen=True)
class Simplify(Pass):
    """Folds what is known before the run and drops what nothing needs, until nothing changes.

    Before::

        Shape(x) -> Gather -> Unsqueeze -> Concat(batch, seq, [-1], [64]) -> Reshape(q)

    After::

        Reshape(q, [0, 0, -1, 64])

    1. Integer and bool values of known content become initializers under the value's own name.
    2. Values of the same symbolic content (a length computed twice) become one; so do repeated computations.
    3. Targets of Reshape and Expand become constants: 0 where the dimension is copied, one -1 where nothing beside
       it can be 0, 1 where Expand keeps the dimension.
    4. What gives back its input goes: Identity, Cast to the own type, Reshape, Expand, Slice and Transpose that change
       nothing, Concat of one, Where, And, Or with a known condition, x + 0, x * 1, Dropout outside training.
       Operands of length zero leave their Concat.
    5. Small float constants are folded by operations that IEEE arithmetic fixes to the last bit.
    6. An If whose condition is known gives way to the branch taken.
    7. Constants become initializers, small equal ones one; dead nodes, unused initializers, functions and opset
       imports go.

    Left alone: graph inputs and outputs with their names, function bodies, weights (nothing over 1 KiB is read),
    Pow, Exp, Sin, MatMul and sums over constants (their last bit is the runtime's), control flow that is not decided.
    The shapes of inner values that a file declares are not believed, only those of graph inputs.
    """

    name: ClassVar[str] = "simplify"
    max_rounds: int = 8
    """More rounds than this raise PassRefused: it did not converge."""

    def call(self, model: ir.Model) -> GraphResult:
        """Simplifies one graph in place."""
        counts: dict[str, int] = {}
        for _ in range(self.max_rounds):
            found = simplify_round(model)
            if not found:
                return GraphResult(model, modified=bool(counts), counts=counts)
            for name, number in found.items():
                counts[name] = counts.get(name, 0) + number
        raise PassRefused(
            f"did not converge in {self.max_rounds} rounds",
            where=self.name,
            hint="Raise max_rounds, or report the graph: every round should leave less to do.",
        )
