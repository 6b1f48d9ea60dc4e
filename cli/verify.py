"""``onnx-passes verify`` runs two models on onnxruntime and tells whether they compute the same."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..ir.core.errors import UsageError
from . import render
from .ending import guarded
from .options import Debug, FollowLinks, Json, OrtOptimization
from .stages import Stages

if TYPE_CHECKING:
    from ..runtime.verify.verify import CaseReport, VerifyReport


Tolerance = float | Literal["ulp"] | None
LONGEST_REASON = 160  # of why a case was left out; --json has all of it


def verify(
    original: Annotated[
        Path, typer.Argument(metavar="ORIGINAL", help="The model before the passes.", show_default=False)
    ],
    result: Annotated[Path, typer.Argument(metavar="OUT", help="The folder that `run` wrote.", show_default=False)],
    inputs: Annotated[
        Path | None, typer.Option(metavar="F.npz", help="Run on these arrays, named like the inputs.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="The seed of generated inputs.")] = 0,
    tolerance: Annotated[
        str | None,
        typer.Option(metavar="X|ulp", help="Allowed difference, of an output's largest value; ulp: one float16 step."),
    ] = None,
    ort_optimization: OrtOptimization = "none",
    as_json: Json = False,
    follow_links: FollowLinks = False,
    debug: Debug = False,
) -> None:
    """Run both models and compare every output they share. Exit code 0 for equal, 1 for not.

    Without --inputs: batches 1 and 3, lengths 1, 7 and 33, rows full, right-padded and ragged, values from the seed.
    """
    from ..runtime.session.isolate import in_child

    allowed = tolerance_of(tolerance)

    def work() -> int:
        from ..runtime.session.session import optimized
        from ..runtime.session.settings import optimization_of

        with optimized(optimization_of(ort_optimization)):
            return _compare((original, result), inputs, (seed, allowed), as_json, follow_links)

    code = in_child(lambda: guarded(work, debug=lambda: debug), "comparing the two models")
    if code:
        raise typer.Exit(code)


def tolerance_of(text: str | None) -> Tolerance:
    """The tolerance that ``--tolerance`` names; UsageError for what is neither a size nor ``ulp``."""
    if text is None or text == "ulp":
        return text
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < 1:
        raise UsageError("--tolerance takes a share of the largest value, or ulp", found=repr(text), wanted="0 to 1")
    return number


def _compare(
    models: tuple[Path, Path], inputs: Path | None, how: tuple[int, Tolerance], as_json: bool, follow_links: bool
) -> int:
    from ..ir.program.program import Program
    from ..runtime.session.arrays import read_arrays
    from ..runtime.session.settings import saturation_note
    from ..runtime.verify.verify import verify as compare

    given = read_arrays(inputs) if inputs is not None else None
    with Stages("loading the two models") as stage:
        before, after = (Program.load(path, follow_links=follow_links) for path in models)
        stage("comparing the two models")
        report = compare(before, after, inputs=given, seed=how[0], tolerance=how[1])
    if note := saturation_note([before, after]):
        report.notes.append(note)
    render.tell_all("note", report.notes)
    render.show_json(report.to_dict()) if as_json else _show(report)
    return 0 if passed(report) else 1


def passed(report: VerifyReport) -> bool:
    """Equal, or sound by structure where the machine cannot run the graph (which the report says)."""
    from ..runtime.verify.verify import Verdict

    return report.verdict in (Verdict.EQUAL, Verdict.STRUCTURE_ONLY)


def _show(report: VerifyReport) -> None:
    columns = ("graph", "case", "result", "max abs", "max rel")
    render.table(columns, map(_row, report.cases), right=("max abs", "max rel"))
    for line in report.structure:
        render.show(line)
    render.show()
    for reason, number in Counter(case.skipped for case in report.cases if case.skipped).items():
        render.show(f"skipped {number}: {reason if len(reason) <= LONGEST_REASON else reason[:LONGEST_REASON] + ' …'}")
    skipped = sum(bool(case.skipped) for case in report.cases)
    left_out = f", {skipped} skipped" if skipped else ""
    # what was found, not what was allowed: fp16 graphs and one-row products have allowances of their own
    found = f"but for {report.max_rel:.2g} of the largest value" if report.max_rel else "bit for bit"
    verdict = f"{report.verdict.value} {found}" if report.equal else report.verdict.value
    ran = f"{render.count(report.runs, 'run')}{left_out}"
    render.show(f"{verdict}: {ran}, seed {report.seed}, optimization {report.runtime['optimization']}")
    for left in report.not_verified if report.runs else ():
        render.show(f"not verified: {left}")
    if report.optional:
        render.show(f"optional inputs fed and left out in turn: {render.few(report.optional)}")
    for limit in dict.fromkeys(report.limits):
        render.show(f"not exercised: {limit}")
    if report.first_difference:
        render.show(f"first difference: {report.first_difference}")


def _row(case: CaseReport) -> tuple[Any, ...]:
    if case.skipped or case.failed:
        return case.graph, case.case, "skipped" if case.skipped else "FAILED", "", ""
    largest = [max((getattr(output, what) for output in case.outputs), default=0.0) for what in ("max_abs", "max_rel")]
    return case.graph, case.case, "equal" if case.equal else "DIFFERENT", *(f"{number:.3g}" for number in largest)
