"""A pass is a frozen dataclass whose fields are its options, run on a graph or on a whole program."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import onnx_ir as ir

from ..ir.core.errors import OnnxPassesError, UsageError
from ..ir.interface.analysis import Known, forget
from ..ir.program.contract import Contract
from ..ir.program.program import Program


@dataclass
class GraphResult(ir.passes.PassResult):
    """What a pass did to one graph: ``counts`` of what changed, sentences for the user, and what it assumed.

    ``notes`` tell, ``warnings`` ask for attention, ``contracts`` are recorded in program.json and checked by verify:
    what must hold of the inputs, and how inputs and outputs differ from those before.
    """

    counts: dict[str, int] = field(default_factory=dict[str, int])
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    contracts: tuple[Contract, ...] = ()


@dataclass(frozen=True)
class Report:
    """What a pass did to a program: counts summed over the graphs, sentences prefixed where graphs are several."""

    modified: bool = False
    counts: dict[str, int] = field(default_factory=dict[str, int])
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    contracts: tuple[Contract, ...] = ()


@dataclass(frozen=True)
class Pass(ir.passes.InPlacePass):
    """The base of every pass. Subclasses set ``name`` (kebab) and write :meth:`call` (one graph, in place).

    A pass that works across graphs overrides :meth:`run` instead. Either it leaves every remaining output equal for
    every input the contract allows, or it raises ``PassRefused`` before it changes anything.
    """

    name: ClassVar[str] = ""
    needs_scripts: ClassVar[bool] = False
    """True for a pass that runs code of the user's; the manager then wants ``allow_scripts``."""

    preserves: ClassVar[frozenset[Known]] = frozenset()
    """The analyses that stay right when the pass has run and edited; one that edits now and then calls ``forget``."""

    def call(self, model: ir.Model) -> GraphResult:
        """Changes one graph in place and says what it did; a pass that works across graphs refuses to."""
        raise UsageError(f"{self.name} works on a whole program", hint="Run it with PassManager, or call run(program).")

    def run(self, program: Program) -> Report:
        """Runs :meth:`call` on every graph and sums the results; where one is refused, those before it are put back."""
        results: list[tuple[str, GraphResult]] = []
        changed: list[tuple[ir.Model, ir.Model]] = []
        for number, (name, model) in enumerate(program.graphs.items(), 1):
            copy = model.clone() if number < len(program.graphs) else model  # nothing can be refused after the last one
            try:
                results.append((name, self.call(model)))
            except OnnxPassesError:
                for graph, before in changed:
                    _put_back(graph, before)
                raise
            changed.append((model, copy))
        return merge_results(results)


def _put_back(model: ir.Model, before: ir.Model) -> None:
    """Gives a model the content of a copy that was made before it was changed."""
    model.graph, model.ir_version = before.graph, before.ir_version
    model.functions.clear()
    model.functions.update(before.functions)
    forget(model)


def merge_results(results: list[tuple[str, GraphResult]]) -> Report:
    """Sums per-graph results into one report."""
    counts: dict[str, int] = {}
    for _, result in results:
        for key, number in result.counts.items():
            counts[key] = counts.get(key, 0) + number

    def sentences(field_name: str) -> tuple[str, ...]:
        return tuple(
            f"{graph}: {text}" if len(results) > 1 else text
            for graph, result in results
            for text in getattr(result, field_name)
        )

    return Report(
        modified=any(result.modified for _, result in results),
        counts=counts,
        notes=sentences("notes"),
        warnings=sentences("warnings"),
        contracts=tuple(
            replace(contract, graphs=(graph,)) if len(results) > 1 and not contract.graphs else contract
            for graph, result in results
            for contract in result.contracts
        ),
    )
