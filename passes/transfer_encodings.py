"""transfer-encodings carries what one graph was calibrated with to the graphs of this program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir

from ..ir.core.errors import PassRefused
from ..ir.program.program import Program
from ..ir.quantization import EncodingTable, encoding_groups
from ..ir.quantization.carried import put_table, table_of
from ..ir.quantization.match import Matched, match
from .base import GraphResult, Pass, Report

SHOWN = 6


@dataclass(frozen=True)
class TransferEncodings(Pass):
    """Takes the encodings of another program of the same model: calibrate one graph, carry them to every clone.

    1. A tensor of the same name takes the encoding, where the operator that computes it and its weights are the same.
    2. A tensor that was renamed is found by how it is computed (operators, attributes but shapes, weights, inputs), in
       graph order, where both graphs have equally many of that kind; graph inputs are not guessed.
    3. States get the encoding of their present in every graph, a channel axis followed.
    4. Tensors of the other program without a partner here are reported; insert-qdq refuses those here without evidence.

    Refused: another model's program (nothing matches), other weights or operators behind one name, a program without
    encodings.

    Attributes:
        from: The calibrated program: a folder that `run` wrote.
    """

    name: ClassVar[str] = "transfer-encodings"

    from_: Path

    def call(self, model: ir.Model) -> GraphResult:
        """Runs on a program of this one graph; the graph stays as it is."""
        report = self.run(Program(graphs={"graph": model}))
        return GraphResult(model, False, counts=report.counts, notes=report.notes, warnings=report.warnings)

    def run(self, program: Program) -> Report:
        """Transfers to every graph; PassRefused before anything is changed."""
        other = Program.load(self.from_)
        source, before = table_of(other), dict(program.encodings)
        if not source.names():
            hint = "Run load-encodings there first, or use load-encodings with a file here."
            raise PassRefused(f"{self.from_} holds no encodings", where=self.name, hint=hint)
        matches = [
            match(theirs, ours, source.names()) for theirs in other.graphs.values() for ours in program.graphs.values()
        ]
        if not any(found.names for found in matches):
            raise PassRefused(
                f"no tensor of {self.from_} is found here",
                where=self.name,
                found=", ".join(source.names()[:SHOWN]),
                hint="Encodings are carried between graphs of one model only.",
            )
        table = table_of(program)
        for found in matches:
            _take(table, source, found)
        _complete_states(table, program)
        put_table(program, table)
        return _report(matches, modified=program.encodings != before)


def _take(table: EncodingTable, source: EncodingTable, found: Matched) -> None:
    for theirs, ours in found.names.items():
        if theirs in source.encodings:
            table.encodings[ours] = source.encodings[theirs]
        if theirs in source.ranges:
            table.ranges[ours] = source.ranges[theirs]


def _complete_states(table: EncodingTable, program: Program) -> None:
    """A renamed past has no print of its own: it takes what its present has."""
    for model in program.graphs.values():
        for group in encoding_groups(model):
            chosen = table.encodings.get(group.leader.name or "")
            if chosen is None:
                continue
            for name in group.names():
                if name not in table.encodings:
                    table.encodings[name] = replace(group.adapt(chosen, name), low=None, high=None)


def _report(matches: Sequence[Matched], *, modified: bool) -> Report:
    everywhere = set[str](matches[0].open_sources).intersection(*(found.open_sources for found in matches))
    lost = [name for name in matches[0].open_sources if name in everywhere]
    more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
    warnings = (f"{len(lost)} encodings found no tensor here: {', '.join(lost[:SHOWN])}{more}",) if lost else ()
    counts = {
        "by_name": sum(len(found.names) - found.by_structure for found in matches),
        "by_structure": sum(found.by_structure for found in matches),
        "unmatched": len(lost),
    }
    return Report(modified, counts, warnings=warnings)
