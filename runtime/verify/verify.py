"""Runs two programs on the same inputs at several sizes and compares every output they share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import UsageError
from ...ir.interface.analysis import kept_analyses
from ...ir.program.contracts.chain import Chain
from ...ir.program.joined import joined
from ...ir.program.program import Program
from ...ir.program.unrolled import Unrolled, unrolled
from ..session.bound import at_sizes_of
from ..session.exact_products import exact_products
from ..session.session import KernelMissing, SessionError
from ..session.subject import Subject
from ..session.widen import widened_arrays, widened_pair, widened_program
from .adapted import rounds
from .anew import apart
from .chain_check import check_chains
from .closeness import OTHER_SUMS
from .contract import Contract
from .coverage import claims_of, unpaired_states
from .fp16_fallback import settle
from .layer_play import layer_specs
from .observe import observing
from .optional import FED, LEFT_OUT, optional_inputs, without_defaults
from .pair import Pair
from .replay_graphs import replays
from .report import CaseReport, Verdict, VerifyReport

__all__ = ["CaseReport", "Verdict", "VerifyReport", "verify"]


def verify(
    original: Program,
    result: Program,
    *,
    inputs: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    tolerance: float | Literal["ulp"] | None = None,
) -> VerifyReport:
    """Compares ``result`` with ``original`` on generated inputs, or on the given ones.

    Cases give the original's feeds, the contracts of the passes the result's feeds and what it must answer.

    ``tolerance`` is relative to each output's largest value; by default 0 (bit-equal), or 2e-6 where the result's
    contracts allow positions in any order, or what the rows of spelled-out operators state; "ulp" adds to that one
    unit in the last place of the largest value for float16 and bfloat16.

    Where the two share graphs, as after a `PassManager.run`, which changes its program in place, the original is read
    anew from its files. Raises UsageError where there are none, and for given inputs that break a contract. Where the
    class of a contract is not installed nothing is run: the verdict is NOT_RUN, and a note names the contract.
    """
    split, original, result = result, joined(apart(original, result)), joined(result)
    whole = Contract.of(original, result)
    if whole.lowered:
        original, result = exact_products(original), exact_products(result)
    allowed = tolerance if isinstance(tolerance, int | float) else whole.closeness
    report = VerifyReport(tolerance=allowed, ulp=tolerance == "ulp", seed=seed)
    for turn in rounds(original, result, report.notes.append):
        done = len(report.cases)
        with kept_analyses(turn.original.graphs), kept_analyses(turn.result.graphs):
            _fill(report, turn.original, turn.result, Contract.of(turn.original, turn.result), inputs)
        if turn.title:
            report.cases[done:] = [replace(case, case=f"{case.case}, {turn.title}") for case in report.cases[done:]]
    if inputs is None and not whole.chain.unknown:
        report.cases.extend(check_chains(split, seed))
    report.notes = list(dict.fromkeys(report.notes))
    return report


def _fill(
    report: VerifyReport, original: Program, result: Program, whole: Contract, inputs: Mapping[str, np.ndarray] | None
) -> None:
    """Puts what was found of all graphs into ``report``."""
    report.claims = claims_of(result)
    report.notes += unpaired_states(result)
    if unknown := whole.chain.unknown:
        report.notes += list(dict.fromkeys(f"not verified: {link.sentence()}" for link in unknown))
        return
    played = _replayed(original, result, report) | _layers(original, result, report) if inputs is None else set[str]()
    for name, unbound, after in _pairs(original, result, played):
        comparing = _Comparing(name, Contract.of(original, result, name), inputs)
        settle(report, name, comparing.of((unbound, after)), partial(comparing.wide, (unbound, after)))
    if report.verdict is Verdict.DIFFERENT and any(_rounds(text) for text in result.pass_texts[whole.chain.since :]):
        report.notes.append("the result was quantized since: `onnx-passes compare` measures what that costs on texts")


def _rounds(text: str) -> bool:
    """Whether a pass takes numbers to integers of a grid, so that no bit-equal answer is to be had."""
    return text.partition("{")[0] == "insert-qdq"


@dataclass(frozen=True)
class _Comparing:
    """Comparisons of one graph: of a pair as it is, or in float32."""

    name: str
    contract: Contract
    inputs: Mapping[str, np.ndarray] | None

    def of(self, models: tuple[ir.Model, ir.Model]) -> Callable[[VerifyReport], None]:
        return lambda report: _compare(self.name, models, self.contract, report, self.inputs)

    def wide(self, models: tuple[ir.Model, ir.Model]) -> Callable[[VerifyReport], None] | None:
        found = widened_pair(*models)
        given = widened_arrays(self.inputs) if self.inputs is not None else None
        return replace(self, inputs=given).of(found) if found is not None else None


def _compare(
    name: str,
    models: tuple[ir.Model, ir.Model],
    contract: Contract,
    report: VerifyReport,
    inputs: Mapping[str, np.ndarray] | None,
) -> None:
    """Runs a graph of the original and one of the result; what was found goes into ``report``."""
    unbound, after = observing(models[0], contract.chain.observed), models[1]
    original_subject = Subject.of(at_sizes_of(unbound, after), f"{name} (original)")
    pair = Pair(name, original_subject, Subject.of(after, f"{name} (result)"), contract, report, unbound)
    pair.agree()
    try:
        if inputs is None and pair.played(report.seed):
            return
        pair.open()
    except KernelMissing as error:
        report.lacks(error.what, f"{name}: ")
        report.structure.extend(pair.structure())
        return
    except SessionError as error:
        if error.where == pair.original.name:
            raise
        report.cases.append(CaseReport(name, "loading", failed=error.what))
        return
    if refused := pair.refused_as_usual():
        report.cases.append(CaseReport(name, "loading", failed=refused))
    report.cases.extend(pair.run_given(inputs) if inputs is not None else pair.run_planned(report.seed))
    report.optional += [name for name in pair.optional if inputs is None and name not in report.optional]


def _pairs(original: Program, result: Program, played: Collection[str]) -> Iterator[tuple[str, ir.Model, ir.Model]]:
    """Graphs and what became of them, but those played; all of the result belong to an original's only graph."""
    names = [name for name in result.names if name not in played]
    if len(original.graphs) == 1:
        before = next(iter(original.graphs.values()))
        yield from ((name, before, result.graph(name)) for name in names)
        return
    sources = {name: _source(original, result, name) for name in names}
    missing = [name for name, source in sources.items() if source is None]
    if missing:
        raise UsageError(f"the original has no graph {missing[0]!r}", found=", ".join(original.graphs))
    yield from ((name, original.graphs[sources[name] or ""], result.graph(name)) for name in names)


def _source(original: Program, result: Program, name: str) -> str | None:
    """The graph of the original that a graph of the result was: by name, or by what it was cloned or cut from."""
    lineage = Chain.between(original, result, name).lineage
    return next((source for source in lineage if source in original.graphs), None)


def _replayed(original: Program, result: Program, report: VerifyReport) -> set[str]:
    """Plays a text through what was cloned, in float32 where half precision leaves it open; the graphs dealt with."""

    def wide() -> Callable[[VerifyReport], set[str]] | None:
        programs = widened_program(original), widened_program(result)
        return partial(_replay, programs[0] or original, programs[1] or result) if any(programs) else None

    return settle(report, "clones", partial(_replay, original, result), wide)


def _replay(original: Program, result: Program, report: VerifyReport) -> set[str]:
    """Plays a text through the prefills and decodes of the result; the names of the graphs that were dealt with.

    A graph that several of them share was played at their sizes: at others it is still to be compared, but where its
    answers depend on how a text is cut into runs.
    """
    each = unrolled(result)
    graphs = {spec.graph for spec in replays(each.program)}
    if not graphs:
        return graphs
    report.tolerance = max(report.tolerance, OTHER_SUMS)
    optional = optional_inputs(original)
    try:
        with kept_analyses(original.graphs), kept_analyses(result.graphs):
            report.cases.extend(_played(original, each, report, LEFT_OUT if optional else ""))
        if optional:
            fed = replace(each, program=without_defaults(each.program))
            report.cases.extend(_played(without_defaults(original), fed, report, FED))
            report.optional += [name for name in optional if name not in report.optional]
    except KernelMissing as error:
        report.lacks(error.what)
        report.structure.extend(_sound(name, each.program.graph(name)) for name in sorted(graphs))
    from ...ir.proof.whole_run import scales_of_runs

    by_run = any(scales_of_runs(model) for model in original.graphs.values())
    return (graphs - each.shared.keys()) | set(each.shared.values() if by_run else ())


def _played(original: Program, result: Unrolled, report: VerifyReport, how: str) -> Iterator[CaseReport]:
    """The cases of clones, titles ended by ``how`` optional inputs were dealt with; a limit is told once."""
    from .replay import replay

    for found in replay(original, result.program, report.seed, _once(report.notes), _once(report.limits)):
        graph = result.shared.get(found.graph, found.graph)
        yield CaseReport(graph, f"{found.case}{how}", found.outputs, found.skipped, found.failed, found.claim)


def _once(told: list[str]) -> Callable[[str], None]:
    return lambda text: None if text in told else told.append(text)


def _layers(original: Program, result: Program, report: VerifyReport) -> set[str]:
    """Runs the layers of the result on what the original computes; the names of the graphs that were dealt with.

    In float32 where they have half precision: what a runtime rounds there depends on the operators around a layer.
    """
    graphs = {spec.graph for spec in layer_specs(result)}
    if not graphs:
        return graphs
    from .layer_check import check_layers

    wide = widened_program(original), widened_program(result)
    if any(wide):
        report.notes.append(f"{', '.join(sorted(graphs))}: half precision was run as float32 throughout")
        original, result = wide[0] or original, wide[1] or result
    try:
        report.cases.extend(check_layers(original, result, report.seed, report.notes.append))
    except KernelMissing as error:
        report.lacks(error.what)
        report.structure.extend(_sound(name, result.graph(name)) for name in sorted(graphs))
    return graphs


def _sound(name: str, model: ir.Model) -> str:
    from ...ir.core.verifier import check_structure

    check_structure(model)
    return f"{name}: a sound graph; nothing was run"
