"""Two programs are left one part of each kind: parts that differ in weights alone go out of both alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from ...ir.interface.analysis import analysis_of
from ...ir.program.program import Program
from ...ir.rewrite.layer.fewer import Part, find_parts, leave_out

Weights = frozenset[str]


@dataclass(frozen=True)
class Fewer:
    """What is left of both programs, and how many parts stand for how many."""

    original: Program
    result: Program
    kept: int
    left_out: int

    @property
    def text(self) -> str:
        """What was run, as a clause."""
        return f"of {self.kept + self.left_out} parts, {self.left_out} like another but for their weights were left out"


def with_fewer_parts(original: Program, result: Program) -> Fewer | None:
    """Both without the parts that are like another in the original and in every graph of the result.

    The weights that they take tell the parts: passes leave their names as they are. None where there are none,
    or where something of what would go is needed elsewhere.
    """
    if len(original.graphs) != 1:
        return None
    programs = original, replace(result, graphs={name: model.clone() for name, model in result.graphs.items()})
    graphs = [model for program in programs for model in program.graphs.values()]
    tables = [_by_weights(model) for model in graphs]
    shared = [key for key in tables[0] if all(key in table for table in tables)]
    seen, gone = set[tuple[int, ...]](), list[Weights]()
    for key in shared:
        kind = tuple(table[key].mark for table in tables)
        if kind in seen:
            gone.append(key)
        seen.add(kind)
    if not gone:
        return None
    for model, table in zip(graphs, tables, strict=True):
        if not _left(model, table, gone):
            return None
    return Fewer(*programs, kept=len(shared) - len(gone), left_out=len(gone))


def _by_weights(model: ir.Model) -> dict[Weights, Part]:
    """The parts that have matrices of their own, by their names; those that leave by an output themselves stay."""
    parts = find_parts(model, analysis_of(model).roles)
    times = Counter(name for part in parts for name in part.weights)
    own = [(frozenset(name for name in part.weights if times[name] == 1), part) for part in parts]
    return {key: part for key, part in own if key and not part.exit.is_graph_output()}


def _left(model: ir.Model, table: dict[Weights, Part], gone: Sequence[Weights]) -> bool:
    left = set(gone)
    return leave_out(model, [part for key, part in table.items() if key in left])
