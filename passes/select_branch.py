"""select-branch fixes a boolean input that switches between branches, and the branch taken replaces the If."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ..ir.core.errors import PassRefused, UnknownNameError
from ..ir.program.contracts.interface import FixedSwitch
from ..ir.rewrite.fix_input import fix_input
from .base import GraphResult, Pass


@dataclass(frozen=True)
class SelectBranch(Pass):
    """Fixes a boolean graph input and inlines the branch that every If takes because of it.

    Before → after::

        use_cache_branch: bool[1]                            (input gone)
        y = If(use_cache_branch, then=…, else=…)     →       y = (the nodes of the branch taken)

    1. The condition may be computed from the input (Not, Squeeze, Cast, comparisons with constants).
    2. Nested Ifs that the input decides are inlined too.
    3. Inputs that only the other branch used go with it.

    Left alone: every If that the input does not decide. Refused: an input that decides none. For an input of another
    type see select-input.

    Attributes:
        input: The name of the boolean input.
        value: What it is fixed to.
    """

    name: ClassVar[str] = "select-branch"

    input: str
    value: bool

    def call(self, model: ir.Model) -> GraphResult:
        """Fixes the input of one graph; raises PassRefused where no If depends on it alone."""
        switch = self._find(model)
        trial = model.clone()
        fixed = next(value for value in trial.graph.inputs if value.name == self.input)
        if not _fix(trial, fixed, self.value):
            raise PassRefused(
                f"input {self.input!r} decides no If",
                where=f"{self.name}, graph {model.graph.name!r}",
                found=", ".join(sorted({node.op_type for node, _ in switch.uses()})) or "no use",
                wanted="the condition of an If",
                hint="onnx-passes inspect names the graph's cache branch switch, where it has one.",
            )
        used = {id(value) for value in model.graph.inputs if value.uses()}
        inlined = _fix(model, switch, self.value)
        idle = [value for value in model.graph.inputs if id(value) in used and not value.uses() and value is not switch]
        gone = {id(value) for value in (*idle, switch) if not value.is_graph_output()}
        model.graph.inputs[:] = [value for value in model.graph.inputs if id(value) not in gone]
        notes = (f"inputs that only the other branch used are gone: {', '.join(str(v.name) for v in idle)}",)
        return GraphResult(
            model,
            True,
            counts={"branches": inlined, "inputs": len(gone)},
            notes=notes if idle else (),
            contracts=(FixedSwitch(self.input, self.value),),
        )

    def _find(self, model: ir.Model) -> ir.Value:
        for value in model.graph.inputs:
            if value.name == self.input and value.dtype == ir.DataType.BOOL:
                return value
        booleans = [str(v.name) for v in model.graph.inputs if v.dtype == ir.DataType.BOOL]
        other = any(value.name == self.input for value in model.graph.inputs)
        raise UnknownNameError(
            "boolean input",
            self.input,
            booleans,
            where=self.name,
            hint=f"The graph has {', '.join(booleans) or 'none'}."
            + (f" select-input{{input={self.input} value=VALUE}} fixes an input of another type." if other else ""),
        )


def _fix(model: ir.Model, switch: ir.Value, truth: bool) -> int:
    """Fixes ``switch``, an axis of unknown length at 1; returns how many Ifs went."""
    shape = [d if isinstance(d, int) else 1 for d in switch.shape or ()]
    return fix_input(model, switch, np.full(shape, truth), SelectBranch.name)
