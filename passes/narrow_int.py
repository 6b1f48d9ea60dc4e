"""narrow-int makes 64-bit integers 32-bit ones where they are known to fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ..ir.core.errors import UsageError
from ..ir.interface.analysis import analysis_of
from ..ir.interface.roles import Role, find_tables
from ..ir.program.contracts.interface import IntegersNarrowed
from ..ir.rewrite.narrow_integers import Narrowing
from ..ir.shapes.int_bounds import Bounds, bounds_of
from .base import GraphResult, Pass

Rule = Callable[[int], Bounds]
INT64 = ir.DataType.INT64
RANGES: Mapping[Role, Rule] = {
    Role.TOKEN_IDS: lambda largest: (-1, largest),
    Role.POSITIONS: lambda largest: (-1, largest),
    Role.ATTENTION_MASK: lambda largest: (0, 1),
    Role.ENCODER_MASK: lambda largest: (0, 1),
    Role.BATCH_INDEX: lambda largest: (0, largest),
    Role.LOGITS_TO_KEEP: lambda largest: (0, largest),
    Role.CONTEXT_LENGTHS: lambda largest: (0, largest),
    Role.IMAGE_GRID: lambda largest: (0, largest),
}
"""What an input of a role holds, if no token, position or size is above the largest."""


@dataclass(frozen=True)
class NarrowInt(Pass):
    """Makes token ids, positions, masks and what follows from them int32, for compilers without 64-bit integers.

    Before → after::

        input_ids: int64 → Gather(table)               →   input_ids: int32 → Gather(table)
        position_ids: int64 → Add(1) → ScatterND       →   position_ids: int32 → Add(1) → Cast(int64) → ScatterND
        token_ids: int64 ← ArgMax                      →   token_ids: int32 ← Cast ← ArgMax

    1. An input is narrowed by its role: tokens, positions and lengths up to ``largest``, masks of 0 and 1. The contract
       says so, and is held against what is fed.
    2. A value behind it is narrowed where its bounds, operator by operator, are those of int32 and its operator takes
       int32; elsewhere a Cast stands before the operator, as it does where ONNX asks for int64 (shapes, ScatterND).
    3. Outputs follow where their bounds fit: token ids, for ArgMax counts no further than the vocabulary.

    Left alone: states, inputs of unknown role, bodies of If and Loop, functions, shape arithmetic that no input's
    content enters.

    Attributes:
        largest: No token, position, or size of an axis is above it.
    """

    name: ClassVar[str] = "narrow-int"

    largest: int = 1 << 24

    def __post_init__(self) -> None:
        """UsageError for a number that int32 does not hold."""
        if not 0 < self.largest < 1 << 31:
            raise UsageError(
                "no bound of 32-bit integers", where=f"pass {self.name!r}, largest", found=self.largest, wanted="< 2^31"
            )

    def call(self, model: ir.Model) -> GraphResult:
        """Narrows one graph."""
        known, tables = analysis_of(model), find_tables(model)
        carried = {value for state in known.states for value in (state.input, state.output) if value is not None}
        given = {
            value: RANGES[role](min(self.largest, tables.get(value.name or "", self.largest + 1) - 1))
            for value in model.graph.inputs
            if value.dtype is INT64 and value not in carried and (role := known.roles[value.name or ""]) in RANGES
        }
        bounds = bounds_of(model, given, self.largest)
        narrowing = Narrowing(model, bounds, self.name)
        narrowing.run(given)
        names = [(index, v.name or "") for index, v in enumerate(model.graph.outputs) if v not in carried]
        outputs = [name for index, name in names if narrowing.narrow_output(index)]
        inputs = tuple(value.name or "" for value in given)
        if not inputs and not outputs:
            return GraphResult(model, False)
        counts = {
            "inputs": len(inputs),
            "outputs": len(outputs),
            "operators": narrowing.nodes,
            "casts": narrowing.casts,
        }
        contract = IntegersNarrowed(inputs, tuple(outputs), largest=self.largest)
        left = [v.name or "" for v in (*model.graph.inputs, *model.graph.outputs) if v.dtype is INT64]
        notes = (f"stay int64: {', '.join(left)}",) if left else ()
        return GraphResult(
            model, True, counts={key: n for key, n in counts.items() if n}, notes=notes, contracts=(contract,)
        )
