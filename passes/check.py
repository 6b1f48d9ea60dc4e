"""check proves, inside a pipeline, that every specialization fits its graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..ir.core.errors import PassRefused
from ..ir.core.specialization import Specialization
from ..ir.interface.analysis import ALL, Known
from ..ir.program.program import Program
from ..ir.proof import Failure, Proof, prove
from .base import Pass, Report

MAX_SHOWN = 3


@dataclass(frozen=True)
class Check(Pass):
    """Refuses a program with a specialization that its graph does not take; changes nothing.

    What ``onnx-passes check`` proves of files is proved here before they are written::

        prefill {batch: 1, seq: 32, ctx: 128}   →   sound
        decode_k4 {batch: 1, seq: 4, ctx: 128}  →   refused: K=4 takes 5 tokens

    1. Clones are proved with the graph they are clones of, under the names of its symbols.
    2. Graphs without specializations pass.

    Left alone: everything. Refused: what breaks a rule, with the nearest sizes that would not.
    """

    name: ClassVar[str] = "check"
    preserves: ClassVar[frozenset[Known]] = ALL

    def run(self, program: Program) -> Report:
        """Proves every graph of the program; raises PassRefused with the first failures."""
        proofs = list(_proofs(program))
        failures = [failure for proof in proofs for failure in proof.all_failures]
        if failures:
            raise _refusal(self.name, failures)
        proved = sum(len(proof.verdicts) for proof in proofs)
        return Report(
            notes=(f"{proved} specializations are sound", *(note for proof in proofs for note in proof.notes))
        )


def _proofs(program: Program) -> Iterator[Proof]:
    """One proof a graph that has nodes of its own."""
    for name, model in program.graphs.items():
        own = [_of_base(program, spec) for spec in program.specializations if _base(program, spec.graph) in ("", name)]
        ports = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
        listed = {port: kind for port, kind in program.custom_io.items() if port in ports}
        if own:
            yield prove(model, own, name=name, custom_io=listed)


def _base(program: Program, graph: str) -> str:
    clone = program.clones.get(graph)
    return graph if clone is None else clone.base


def _of_base(program: Program, spec: Specialization) -> Specialization:
    """The specialization as one of the graph that has the nodes."""
    return spec.model_copy(update={"graph": _base(program, spec.graph)})


def _refusal(where: str, failures: list[Failure]) -> PassRefused:
    shown = " | ".join(str(failure) for failure in failures[:MAX_SHOWN])
    more = f" | and {len(failures) - MAX_SHOWN} more" if len(failures) > MAX_SHOWN else ""
    return PassRefused(
        "a specialization does not fit its graph",
        where=where,
        found=shown + more,
        hint="Change the sizes as listed; `onnx-passes check` on the files shows all failures.",
    )
