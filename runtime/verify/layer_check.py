"""Runs layers that were cut out of a decoder on what the whole decoder gives them, and compares what they answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

from ...ir.program.program import Program
from ...ir.rewrite.layer.open_norm import NORMS
from ...ir.rewrite.layer.spans import SUMS
from ...ir.rewrite.ownership import owner_of
from ..session.legalize import legalized
from ..session.session import RunError, Session, SessionError
from .compare import Difference, compare, ulp_tolerance
from .layer_play import OWNER, Run, WholeGraph, layer_specs
from .report import CaseReport

RUNS = 6
OPENED = 2e-6  # what a sum and its norm may differ by from the operator that does both
TITLE = "what the whole graph computes"


def check_layers(original: Program, result: Program, seed: int, tell: Callable[[str], None]) -> Iterator[CaseReport]:
    """Plays a random text through the original, at the layers' sizes, and each layer on what the original computes.

    ``tell`` receives notes. Raises KernelMissing where the original cannot be run, UsageError where it has no such
    tensors: then it is not the graph that was cut.
    """
    for spec in layer_specs(result):
        layer = result.graph(spec.graph)
        whole = WholeGraph.of(original, result, spec)
        if whole.opened:
            tell(f"{spec.graph}: the original ran with {', '.join(whole.opened)} as a sum and a norm")
        try:
            session = Session(legalized(layer).model, spec.graph)
        except SessionError as error:
            yield CaseReport(spec.graph, "loading", failed=error.what)
            continue
        if changed := _retyped(layer, whole):
            yield CaseReport(spec.graph, TITLE, failed=changed)
            continue
        yield from _play(spec.graph, whole, session, seed, opened=_has_opened_norm(layer))


def _retyped(layer: ir.Model, whole: WholeGraph) -> str:
    """Why a layer with integer caches cannot be held against a graph with floats; empty where it has none."""
    known = {value.name: value.dtype for value in whole.player.subject.model.graph.inputs}
    for value in layer.graph.inputs:
        before = known.get(whole.contract.old_input(value.name or ""))
        if value.dtype is not None and before is not None and value.dtype != before:
            types = f"{value.name} is {value.dtype.name} here and {before.name} in the original"
            return f"{types}: what rounding costs tells `onnx-passes compare LAYER QUANTIZED --within ORIGINAL`"
    return ""


def _has_opened_norm(layer: ir.Model) -> bool:
    """Whether the layer begins or ends in the middle of an operator that the whole graph has: a sum with its norm."""
    kinds = SUMS.union(parts.norm for parts in NORMS.values())
    added = (node for node in layer.graph if owner_of(node) == OWNER and node.op_type in kinds)
    return any((node.name or "").endswith(("/sum", "/norm")) for node in added)


def _play(graph: str, whole: WholeGraph, session: Session, seed: int, *, opened: bool) -> Iterator[CaseReport]:
    """The text's first runs, the last of them with padding where the graph tells it."""
    text = whole.text(seed, RUNS)
    last = max(1, whole.length // 2) if whole.player.pads and text.shape[1] > whole.length else whole.length
    worst: dict[str, Difference] = {}
    runs, done = whole.runs(text, last), 0
    while True:
        try:
            run = next(runs, None)
        except RunError as error:
            yield CaseReport(graph, f"{TITLE}, run {done + 1}", skipped=f"the original rejects it: {error.what}")
            run = None
        if run is None:
            break
        try:
            _compare(whole, session, run, worst, opened=opened)
        except RunError as error:
            yield CaseReport(graph, f"{TITLE}, run {done + 1}", failed=error.what)
            return
        done += 1
    if done:
        vain = "" if worst else "the original's own answers change from run to run"
        yield CaseReport(graph, f"{TITLE}, {done} runs", tuple(worst.values()), skipped=vain)


def _compare(whole: WholeGraph, session: Session, run: Run, worst: dict[str, Difference], *, opened: bool) -> None:
    """Runs the layer and holds its answers against the whole graph's; ``worst`` keeps the largest differences."""
    for name, array in session.run(whole.inputs(session.input_names, run)).items():
        expected, found = whole.answers(name, array, run)
        difference = compare(name, expected, found, OPENED + 4 * ulp_tolerance(expected) if opened else 0.0)
        if not difference.equal and not whole.is_settled(name, run):
            continue
        kept = worst.get(name)
        if kept is None or (difference.equal, -difference.max_rel) < (kept.equal, -kept.max_rel):
            worst[name] = difference
