"""check-speculation-safe lets K proposals a step pass only where rejected tokens can be rolled back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from ..ir.core.errors import PassRefused, UsageError
from ..ir.interface.analysis import ALL, Known
from ..ir.program.contracts.sizes import Assumption
from ..ir.program.program import Program
from ..ir.proof.findings import Findings
from ..ir.proof.rollback import speculation_findings
from ..ir.proof.whole_run import scales_of_runs
from .base import GraphResult, Pass, Report, merge_results

MAX_SHOWN = 3
_OVER_A_RUN = "takes one scale from all tokens of a run: drafted tokens change the logits that accept or reject them"
_STATIC = (
    "calibrated scales (calibrate, then quantize), or dynamic_scales=accept, which gives other tokens now and then"
)
_ACCEPTED = "scales are taken over all tokens of a run: tokens with K > 0 are not those of plain decoding"


@dataclass(frozen=True)
class CheckSpeculationSafe(Pass):
    """Refuses a graph whose states cannot go back over rejected tokens; changes nothing.

    A step verifies K proposals with S = K + 1 tokens; those behind the first wrong one are taken back. What each layout
    allows::

        scatter at positions      free: the next step writes over the rejected rows; a mask hides them till then
        append                    the host cuts the present (a note)
        fused                     the host resets the length or cuts the present (a note)
        delta                     the host owns the cache (a note)
        ring, window              only with window + K rows: rejected tokens overwrite the oldest live rows
        conv, SSM, linear         only with a snapshot for each token (state_window ≥ K + 1)

    Refused beside these: positions that no input tells, rows that no mask hides, numbers that the tokens of a run or a
    cache's length have a part in (a mean over tokens, a length in the maths), operators that decode one token a run,
    a sequence length that is baked in (declared, or found by binding it to K + 1), and scales that are taken over all
    tokens of a run (DynamicQuantizeLinear): drafted tokens, rejected or not, change the logits that decide. Warned of:
    operators whose kernels are known to restrict several tokens on a past. K=0 is always safe.

    Attributes:
        k: The Ks that are planned; the program's own specializations, else 1, where empty.
        dynamic_scales: refuse, or accept scales over a run, which is recorded: tokens are not those of plain decoding.
    """

    name: ClassVar[str] = "check-speculation-safe"
    preserves: ClassVar[frozenset[Known]] = ALL

    k: tuple[int, ...] = ()
    dynamic_scales: Literal["refuse", "accept"] = "refuse"

    def run(self, program: Program) -> Report:
        """Checks every graph for the largest K; raises PassRefused with each reason and what would help."""
        if any(k < 0 for k in self.k):
            raise UsageError("K is a number of proposals", where=self.name, found=min(self.k), wanted="0 or more")
        return merge_results(
            [(name, self._check(name, model, self._largest(program, name))) for name, model in program.graphs.items()]
        )

    def _largest(self, program: Program, graph: str) -> int:
        """The largest K of a graph: what its own specializations say, else what is planned for all."""
        own = [spec.k or 0 for spec in program.specializations if spec.graph == graph]
        planned = [spec.k for spec in program.specializations if spec.k is not None]
        return max(own or self.k or planned or (1,))

    def call(self, model: ir.Model) -> GraphResult:
        """Checks one graph."""
        return self._check(str(model.graph.name), model, max(self.k or (1,)))

    def _check(self, name: str, model: ir.Model, k: int) -> GraphResult:
        found = speculation_findings(model, k)
        scales = scales_of_runs(model) if k and found.states else []
        if scales and self.dynamic_scales == "refuse":
            found.problem(scales[0].name or scales[0].op_type, _OVER_A_RUN, _STATIC)
        if found.problems:
            raise _refusal(f"{self.name}, graph {name!r}", found, k)
        contracts = (Assumption(text=f"{_ACCEPTED} ({scales[0].op_type})"),) if scales else ()
        warnings = (*found.warnings, *(str(contract) for contract in contracts))
        return GraphResult(model, False, notes=tuple(found.notes), warnings=warnings, contracts=contracts)


def _refusal(where: str, found: Findings, k: int) -> PassRefused:
    """One error for all reasons, each with the states it holds for and what would help."""
    reasons = found.reasons
    texts: list[str] = []
    for reason, problems in reasons.items():
        names = ", ".join(problem.where for problem in problems[:MAX_SHOWN])
        more = f" and {len(problems) - MAX_SHOWN} more" if len(problems) > MAX_SHOWN else ""
        texts.append(f"{names}{more} {reason}")
    remedies = dict.fromkeys(problems[0].help for problems in reasons.values())
    return PassRefused(
        f"K={k} is not safe: rejected tokens cannot be rolled back",
        where=where,
        found=" | ".join(texts),
        wanted=" | ".join(remedies),
        hint="K=0 (plain decoding) is always safe: k=0.",
    )
