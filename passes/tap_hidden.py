"""tap-hidden lets hidden rows leave the graph after chosen layers, beside what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ..ir.core.errors import PassRefused, UsageError
from ..ir.interface.analysis import Known, analysis_of
from ..ir.program.contracts.heads import HiddenTapped
from ..ir.rewrite.layer.spans import Span, find_boundaries
from ..ir.rewrite.layer.tap import Tapper, leaves_as
from ..ir.rewrite.names import names_in
from ..ir.shapes.float_values import element_types
from .base import GraphResult, Pass


@dataclass(frozen=True)
class TapHidden(Pass):
    """Adds outputs of the hidden rows after chosen layers: for drafts, sparse and late-interaction heads, probes.

    Before → after, with ``layers=1,-1``::

        input_ids [B, S], … → logits, present.0.key, …
          →   … → logits, present.0.key, …, hidden_states.1 [B, S, D], hidden_states.27 [B, S, D]

    1. A layer ends where ``extract-layer`` cuts: at the value that enters the next one; the last one before the final
       norm. (``hidden_states[i + 1]`` of transformers, but for its last, which is normed.)
    2. Without states, as in embedders, a layer begins at the last value through which everything goes on to operators
       that mix tokens, and to the answer.
    3. Where a fused operator hides the rows (``SkipLayerNormalization``), its fourth output, the sum, is asked for.
    4. Values inside keep their names; an output is an Identity of one. Clones of the graph have the outputs too.

    Left alone: a graph that gives these outputs already. Refused: no single value between layers, layers inside
    functions or branches.

    Attributes:
        layers: Which layers, counted as states' names count, else from 0; negative ones from the end.
        names: Names of the outputs; ``hidden_states.N`` by default.
    """

    name: ClassVar[str] = "tap-hidden"
    preserves: ClassVar[frozenset[Known]] = frozenset({Known.STATES, Known.ROLES})

    layers: tuple[int, ...]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """UsageError for no layers, or names that are not one a layer, each once."""
        where = f"pass {self.name!r}"
        if not self.layers:
            raise UsageError("chooses no layer", where=where, wanted="layers=9,18,27")
        if self.names and (len(self.names) != len(self.layers) or len(set(self.names)) < len(self.names)):
            wanted = f"{len(self.layers)} names, each once"
            raise UsageError("names one output a layer", where=where, found=", ".join(self.names), wanted=wanted)

    def call(self, model: ir.Model) -> GraphResult:
        """Changes one graph; raises UsageError or PassRefused, with nothing changed."""
        where = f"{self.name}, graph {model.graph.name!r}"
        found, types = analysis_of(model), element_types(model)
        branch = next((state for state in found.states if state.branch is not None), None)
        if branch is not None and branch.branch is not None:
            raise PassRefused(
                f"state {branch.name!r} lives inside a branch of an If", where=where,
                hint=f"Put select-branch{{input={branch.branch.switch} value=true|false}} before this pass.",
            )  # fmt: skip
        spans = find_boundaries(model, found.states, found.roles, types, where)
        chosen = [_chosen(spans, number, where) for number in self.layers]
        named = self.names or [f"hidden_states.{span.number}" for span in chosen]
        if len({span.number for span in chosen}) < len(chosen):
            raise UsageError("a layer stands twice", where=where, found=", ".join(map(str, self.layers)))
        wanted = [
            (span, name) for span, name in zip(chosen, named, strict=True) if not leaves_as(model.graph, span.end, name)
        ]
        taken = set(names_in(model.graph)).intersection(name for _, name in wanted)
        if taken:
            raise UsageError("this name is taken in the graph", where=where, found=min(taken), hint="Choose names=….")
        if not wanted:
            return GraphResult(model, False, notes=(f"the rows leave the graph already: {', '.join(named)}",))
        tapper = Tapper(model.graph, types, found.facts, self.name)
        contracts: list[HiddenTapped] = []
        for span, name in wanted:
            rows = tapper.tap(span.end, name)
            hidden = rows.value if rows.port is None else name
            beside = rows.value if rows.port is not None else ""
            contracts.append(HiddenTapped(name, hidden, beside, rows.port, span.number))
        return GraphResult(model, True, {"outputs": len(contracts)}, contracts=tuple(contracts))


def _chosen(spans: Sequence[Span], number: int, where: str) -> Span:
    if -len(spans) <= number < 0:
        return spans[number]
    found = next((span for span in spans if span.number == number), None)
    if found is None:
        wanted = f"{spans[0].number} to {spans[-1].number}, or -{len(spans)} to -1 from the end"
        raise UsageError("there is no such layer", where=where, found=number, wanted=wanted)
    return found
