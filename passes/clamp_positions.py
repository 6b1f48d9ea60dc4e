"""clamp-positions keeps the positions of padded tokens from operators that refuse them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ..ir.interface.analysis import Known, forget
from ..ir.rewrite.clamp_positions import clamp_positions
from .base import GraphResult, Pass


@dataclass(frozen=True)
class ClampPositions(Pass):
    """Gives RotaryEmbedding no position below 0, so that -1 can mark padding where caches are written at positions.

    Before → after::

        RotaryEmbedding(x, cos, sin, positions)  →  RotaryEmbedding(x, cos, sin, Max(positions, 0))

    1. ai.onnx and com.microsoft RotaryEmbedding, in bodies and functions too; operators that read one value share one
       Max. Bit-equal on every input that the operator takes: its positions index the rows of its tables.
    2. A padded token is then rotated as position 0 is. No other token sees its keys, as before.

    Left alone: constant positions, positions that a Max has clamped, and fused attentions, which count rows instead.
    Refused: a graph below opset 12, whose Max takes no integers. convert-states does this by itself.
    """

    name: ClassVar[str] = "clamp-positions"
    preserves: ClassVar[frozenset[Known]] = frozenset({Known.STATES, Known.DIMENSIONS, Known.ROLES})

    def call(self, model: ir.Model) -> GraphResult:
        """Clamps in one graph; raises PassRefused, with nothing changed, where its opset is too old."""
        count = clamp_positions(model, self.name)
        if count:
            forget(model, self.preserves)
        return GraphResult(model, bool(count), counts={"operators": count} if count else {})
