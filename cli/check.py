"""``onnx-passes check`` proves that every specialization is sound for the graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import render
from .options import Debug, FollowLinks, Json, ModelPath

if TYPE_CHECKING:
    from ..api.check import CheckReport
    from ..ir.proof import Proof
    from ..runtime.verify.trial import Trial


def check(
    model: ModelPath,
    manifest: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MANIFEST]",
            help="Specializations in any target's form; those of the program where none is given.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option("--target", help="Whose operators to check; the manifest's where not given.", show_default=False),
    ] = "",
    run: Annotated[bool, typer.Option("--run", help="Also run each one once on onnxruntime.")] = False,
    as_json: Json = False,
    follow_links: FollowLinks = False,
    debug: Debug = False,
) -> None:
    """Prove that every specialization fits the graph. Exit code 0 for sound, 1 for not, 2 for a mistake of usage.

    A failure names the symbol, the first node whose shapes clash, where they come from, and the nearest size.
    """
    from ..api.check import check as prove

    report = prove(model, manifest, target=target, run=run, follow_links=follow_links)
    render.show_json(report.to_dict()) if as_json else _show(report)
    if not report.sound:
        raise typer.Exit(1)


def _show(report: CheckReport) -> None:
    proofs, trials, refused = report.proofs, report.trials, report.refused
    ran = {(trial.graph, trial.specialization): trial for trial in trials}
    rows = [
        (proof.graph, verdict.specialization, "sound" if verdict.sound else "NOT SOUND", _ran(ran, proof, verdict))
        for proof in proofs
        for verdict in proof.verdicts
    ]
    columns = ("graph", "specialization", "verdict", *(("run",) if trials else ()))
    render.table(columns, (row[: len(columns)] for row in rows))
    for proof in proofs:
        render.tell_all("note", proof.notes)
        for failure in proof.all_failures:
            render.show(f"\n{failure.rule}: {failure}")
    for trial in trials:
        if trial.failed or trial.skipped:
            render.show(f"\nrun: {trial.specialization}: {trial.failed or trial.skipped}")
    for graph, findings in refused.items():
        for finding in findings:
            render.show(f"\noperators: graph {graph}: {finding}")
    render.show()
    number = sum(len(findings) for findings in refused.values())
    number += sum(len(proof.all_failures) for proof in proofs) + sum(bool(trial.failed) for trial in trials)
    render.show("sound" if report.sound else f"not sound: {render.count(number, 'failure')}")


def _ran(ran: Mapping[tuple[str, str], Trial], proof: Proof, verdict: Any) -> str:
    trial = ran.get((proof.graph, verdict.specialization))
    if trial is None:
        return ""
    return "FAILED" if trial.failed else "skipped" if trial.skipped else "ran"
