"""tie-states gives one encoding to every tensor that holds a carried state's numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import onnx_ir as ir

from ..ir.core.errors import PassRefused
from ..ir.program.program import Program
from ..ir.quantization import (
    Encoding,
    EncodingTable,
    Evidence,
    Group,
    NoEvidence,
    Symmetry,
    encoding_groups,
    encoding_of,
    evidence_of,
    join,
)
from ..ir.quantization.carried import put_table, table_of
from ..ir.quantization.clip import resolve
from ..ir.quantization.decide import Choice, Decider, taken_of
from ..ir.quantization.grid import no_evidence
from .base import GraphResult, Pass, Report


@dataclass(frozen=True)
class TieStates(Pass):
    """Gives past, present (or delta), what is appended and every moved copy of them one symmetric encoding.

    Before → after::

        past: none   new: -1..2   present: -3..2      →  all three: 8 bits, scale 3/127, zero point 0

    1. The range is that of all members with evidence: of the present, that is, for the others hold parts of it. A past
       that was empty or all zeros while it was watched says nothing and decides nothing.
    2. Where the present has an encoding of the wanted width that is symmetric (from a file, per channel too), all take
       that one; a channel axis is followed through Transpose and Reshape, and refused where it does not survive.
    3. A group that holds members of several graphs' states has one encoding in all of them: names are the same.

    Refused, naming the tensor: a state without evidence (infinite, NaN, or one value only), for a default scale would
    destroy the cache without a word.

    4. With a recipe its rules of caches decide the bits of each state; those that it leaves in float are not tied.

    Attributes:
        bits: 8 or 16.
        recipe: A shipped recipe's name, or a file of rules.
    """

    name: ClassVar[str] = "tie-states"

    bits: Literal[8, 16] = 8
    recipe: str | None = None

    def call(self, model: ir.Model) -> GraphResult:
        """Runs on a program of this one graph; the graph stays as it is."""
        report = self.run(Program(graphs={"graph": model}))
        return GraphResult(model, False, counts=report.counts, notes=report.notes)

    def run(self, program: Program) -> Report:
        """Ties the states of every graph; NoEvidence names the state that nothing is known of."""
        table, before = table_of(program), dict(program.encodings)
        taken = taken_of(self.recipe)
        choices: dict[int, Choice | None] = {}
        groups: list[Group] = []
        for model in program.graphs.values():
            decider = Decider.of(model, taken) if taken is not None else None
            found = decider.groups if decider is not None else encoding_groups(model)
            groups += found
            uniform = Choice(self.bits, symmetric=True)
            choices |= {id(group): uniform if decider is None else decider.group(group) for group in found}
        merged = [together for together in _merged(groups) if choices[id(together[0])] is not None]
        if taken is not None:
            taken.check(("caches",))
        if not groups:
            return Report(notes=("no carried state to tie",))
        for together in merged:
            self._tie(table, together, [choices[id(group)] for group in together])
        put_table(program, table)
        tied = sum(len({name for group in together for name in group.names()}) for together in merged)
        notes = taken.notes(("caches",)) if taken is not None else ()
        return Report(program.encodings != before, {"groups": len(merged), "tensors": tied}, notes)

    def _tie(self, table: EncodingTable, together: Sequence[Group], choices: Sequence[Choice | None]) -> None:
        leader, choice = together[0].leader.name or "", choices[0]
        if choice is None or any(other != choice for other in choices):
            bits = sorted({str(other.bits) if other is not None else "float" for other in choices})
            what = f"state {together[0].name!r} is one tensor of several graphs, and rules give it different bits"
            raise PassRefused(what, where=self.name, found=" and ".join(bits))
        chosen = self._given(table, together, choice) or self._derived(table, together, choice)
        for group in together:
            for member in group.names():
                table.encodings[member] = replace(group.adapt(chosen, member), low=None, high=None)
        assert leader in table.encodings

    def _given(self, table: EncodingTable, together: Sequence[Group], choice: Choice) -> Encoding | None:
        """The leader's own encoding, where nothing was watched and it is what is wanted."""
        for group in together:
            own = table.encodings.get(group.leader.name or "")
            watched = any(table.ranges[name].usable for name in group.names() if name in table.ranges)
            fits = own is not None and own.bits == choice.bits and own.symmetric and not own.levels
            if own is not None and fits and (not watched or not own.per_tensor):
                return own
        return None

    def _derived(self, table: EncodingTable, together: Sequence[Group], choice: Choice) -> Encoding:
        leader = together[0].leader.name or ""
        names = [name for group in together for name in group.names()]
        seen = {name: table.ranges[name] for name in names if name in table.ranges}
        bad = next((name for name, e in seen.items() if math.isnan(e.low) or math.isnan(e.high)), None)
        if bad is not None:
            raise no_evidence(bad, seen[bad])
        usable = [e for e in seen.values() if e.usable]
        whole = join(resolve(e, choice.bits, symmetric=True, method=choice.method) for e in usable)
        if not whole.usable:
            whole = _covered(table, [group.leader.name or "" for group in together])
        if not whole.usable:
            raise self._unknown(together[0], seen.get(leader))
        return encoding_of(leader, whole, choice.bits, Symmetry.SYMMETRIC)

    def _unknown(self, group: Group, seen: Evidence | None) -> NoEvidence:
        error = no_evidence(group.leader.name or "", seen)
        return NoEvidence(
            f"state {group.name!r} has no evidence: {error.what}",
            where=self.name,
            found=error.found,
            wanted=error.wanted,
            hint="Run onnx-passes calibrate, then load-encodings; a past of length 0 or of zeros tells nothing.",
        )


def _covered(table: EncodingTable, leaders: Sequence[str]) -> Evidence:
    """What the presents' encodings cover; those of pasts are left out: a scale of 1.0 there is what nobody watched."""
    found = [table.encodings[name] for name in leaders if name in table.encodings]
    return join(evidence_of(encoding) for encoding in found if encoding.scale and encoding.per_tensor)


def _merged(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups of several graphs that share a name are one: encodings are stored once for all graphs."""
    merged: list[tuple[set[str], list[Group]]] = []
    for group in groups:
        names = set(group.names())
        touching = [item for item in merged if item[0] & names]
        together = [g for _, members in touching for g in members] + [group]
        merged = [item for item in merged if not item[0] & names]
        merged.append((names.union(*(item[0] for item in touching)), together))
    return [together for _, together in merged]
