"""Proves specializations by tables of rules, run in an order in which later ones may rely on earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from ..core.specialization import Specialization
from ..interface.analysis import analysis_of
from ..interface.dimensions import DimensionAnalysis
from ..program.contracts.sizes import Claims
from . import lengths, sets, shapes, symbols, tensors
from .case import Case, Failure, Proof, Verdict, View
from .placed import in_symbols

if TYPE_CHECKING:
    from ..program.program import Program

TOLERATED = frozenset({"full_batch_exec_size"})
"""What manifests hold beside the graphs' symbols where no target says otherwise."""

ViewRule = Callable[[View], Iterator[Failure]]
SetRule = Callable[[Case], Iterator[Failure]]

SYMBOL_RULES: tuple[ViewRule, ...] = (
    symbols.every_symbol_bound,
    symbols.no_unknown_symbol,
    symbols.sizes_positive,
    symbols.equal_dimensions,
    symbols.tensors_fit,
)
LENGTH_RULES: tuple[ViewRule, ...] = (
    lengths.in_order,
    lengths.logits_rows,
    lengths.speculative_tokens,
    lengths.decode_rows,
    lengths.cache_rows,
    lengths.full_cache,
    lengths.window_rows,
)
SHAPE_RULES: tuple[ViewRule, ...] = (
    tensors.defaults_fit,
    tensors.state_shapes,
    tensors.outputs_as_declared,
    shapes.shapes_meet,
)
STAGES = (SYMBOL_RULES, LENGTH_RULES, SHAPE_RULES)  # a later stage needs what an earlier one has proved
SET_RULES: tuple[SetRule, ...] = (
    sets.not_empty,
    sets.names_differ,
    sets.none_alike,
    sets.decode_below_prefill,
    sets.states_handed_over,
    sets.numbers_in_a_row,
    tensors.state_types,
    tensors.state_pairs,
    tensors.custom_io,
)


def prove(
    graph: ir.Model | DimensionAnalysis,
    specs: Sequence[Specialization],
    *,
    name: str = "",
    tolerated: Iterable[str] = TOLERATED,
    custom_io: Mapping[str, str] | None = None,
    claims: Claims | None = None,
) -> Proof:
    """Holds every specialization against one graph; a failure is returned, never raised. The graph is not changed.

    ``tolerated`` are symbols that the target takes though no graph has them; ``claims`` is what the set must cover.
    """
    canonical = graph if isinstance(graph, DimensionAnalysis) else analysis_of(graph).dimensions()
    case, early = _case(canonical, specs, name, tolerated, custom_io or {})
    if claims is not None:
        early += sets.as_claimed(claims, [case])
    return _proof(case, early)


def prove_program(
    program: Program,
    specs: Sequence[Specialization],
    *,
    tolerated: Iterable[str] = TOLERATED,
    custom_io: Mapping[str, str] | None = None,
    claims: Claims | None = None,
) -> list[Proof]:
    """One proof a graph, each of the specializations that belong to it; what belongs to no graph fails the first."""
    listed = program.custom_io if custom_io is None else custom_io
    ports = {name: _ports(model) for name, model in program.graphs.items()}
    nobody = set(listed).difference(*ports.values())
    cases: list[tuple[Case, list[Failure]]] = []
    for name, model in program.graphs.items():
        own = [spec for spec in specs if spec.graph in ("", name)]
        mine = {key: kind for key, kind in listed.items() if key in ports[name] or (key in nobody and not cases)}
        case, early = _case(analysis_of(model).dimensions(), own, name, tolerated, mine)
        case.bound = program.bound.get(name, {})
        cases.append((case, early))
    first = cases[0][1]
    for spec in specs:
        if spec.graph and spec.graph not in program.graphs:
            what = f"the program has no graph {spec.graph!r}"
            first.append(Failure("set", spec.graph, what, spec.name, nearest=", ".join(program.graphs)))
    first += sets.as_claimed(claims or Claims(), [case for case, _ in cases])
    some = any(case.specs for case, _ in cases)
    return [_proof(case, early) for case, early in cases if case.specs or early or case.custom_io or not some]


def _case(
    canonical: DimensionAnalysis,
    specs: Sequence[Specialization],
    name: str,
    tolerated: Iterable[str],
    custom_io: Mapping[str, str],
) -> tuple[Case, list[Failure]]:
    """The case with its specializations written in symbols, and what could not be written so."""
    translated = [in_symbols(canonical, spec) for spec in specs]
    case = Case(canonical, [spec for spec, _ in translated], name, frozenset(tolerated), custom_io)
    return case, [failure for _, found in translated for failure in found]


def _proof(case: Case, early: Sequence[Failure]) -> Proof:
    verdicts = [Verdict(view.spec.name, tuple(_judge(view))) for view in case.views]
    by_name = {verdict.specialization: index for index, verdict in enumerate(verdicts)}
    whole: list[Failure] = []
    for failure in (*early, *(failure for rule in SET_RULES for failure in rule(case))):
        index = by_name.get(failure.specialization)
        if index is None:
            whole.append(failure)
        else:
            old = verdicts[index]
            verdicts[index] = Verdict(old.specialization, (*old.failures, failure))
    return Proof(case.graph, tuple(verdicts), tuple(whole), tuple(_notes(case, verdicts)))


def _ports(model: ir.Model) -> set[str]:
    return {value.name or "" for value in (*model.graph.inputs, *model.graph.outputs)}


def _judge(view: View) -> list[Failure]:
    for rules in STAGES:
        found = [failure for rule in rules for failure in rule(view)]
        if found:
            return found
    return []


def _notes(case: Case, verdicts: Sequence[Verdict]) -> Iterator[str]:
    facts, nodes = case.used.demands.facts, case.used.model.graph
    blind = sorted({node.op_type for node in nodes if any(facts.shape(value) is None for value in node.outputs)})
    if blind:
        yield f"nothing is known of the shapes that {', '.join(blind[:8])} give: what follows them was not proved"
    for view, verdict in zip(case.views, verdicts, strict=True):
        number = shapes.open_demands(view) if verdict.sound else 0
        if number:
            yield f"{view.spec.name}: {number} demands on shapes depend on data and were not decided"
