"""``onnx-passes run`` takes a pipeline over a model and writes a folder with what came of it."""

from __future__ import annotations

import enum
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from . import render
from .job import Job, Outcome, execute
from .options import Debug, FollowLinks, Json, ModelPath
from .report import require_template_engine, write_report
from .stages import Stages


class Weights(enum.StrEnum):
    """What becomes of weights in files of their own."""

    AUTO = "auto"
    REFER = "refer"
    COPY = "copy"


class Proving(enum.StrEnum):
    """When the result is run beside its original before it is written."""

    NEVER = "never"
    AUTO = "auto"
    ALWAYS = "always"


def _complete_pipeline(incomplete: str) -> list[str]:
    """Pipelines that a Tab may make of what is written: the last name completed, from the tables alone."""
    from ..passes.presets import PRESETS
    from ..passes.registry import PASSES

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in sorted({*PRESETS, *PASSES}) if name.startswith(last)]


Pipeline = Annotated[
    str,
    typer.Argument(
        metavar="PIPELINE",
        help="Passes and presets, like 'strip-states,simplify'.",
        show_default=False,
        autocompletion=_complete_pipeline,
    ),
]
Out = Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="The folder to write.", show_default=False)]
Report = Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write a report in one HTML file.")]
PrintAfter = Annotated[
    str | None, typer.Option(metavar="PASS", help="Print the graphs as text on stderr after this pass.")
]
Dump = Annotated[Path | None, typer.Option(metavar="DIR", help="Write the graphs as text into DIR after each pass.")]
ReproducerFolder = Annotated[
    Path | None,
    typer.Option(
        "--reproducer", metavar="DIR", help="Where a pass fails, leave the graphs before it and the pipeline in DIR."
    ),
]
Timing = Annotated[bool, typer.Option("--timing", help="Show the seconds of each step on stderr.")]
StopAfter = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="Run the first N passes only, to find the one that fails.")
]
NoVerifyEach = Annotated[bool, typer.Option("--no-verify-each", help="Do not check the graphs between passes.")]
WeightsChoice = Annotated[
    Weights,
    typer.Option(
        metavar="auto|refer|copy", help="Refer to weight files where they are, copy them, or what is possible (auto)."
    ),
]
NoShapes = Annotated[bool, typer.Option("--no-shapes", help="Do not fill in missing shapes of values.")]
AllowScripts = Annotated[
    bool, typer.Option("--allow-scripts", help="Let passes run Python scripts that the pipeline names.")
]
ProveChoice = Annotated[
    Proving,
    typer.Option(
        metavar="never|auto|always",
        help="Run the result beside its original on tiny sizes and seeded weights before it is written: where that "
        "takes about a second (auto).",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that an earlier run did not write.")]


def run_pipeline(
    pipeline: Pipeline,
    model: ModelPath,
    out: Out,
    report: Report = None,
    print_after: PrintAfter = None,
    dump: Dump = None,
    reproducer: ReproducerFolder = None,
    timing: Timing = False,
    stop_after: StopAfter = None,
    no_verify_each: NoVerifyEach = False,
    weights: WeightsChoice = Weights.AUTO,
    follow_links: FollowLinks = False,
    no_shapes: NoShapes = False,
    allow_scripts: AllowScripts = False,
    force: Force = False,
    prove: ProveChoice = Proving.AUTO,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors alone.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a pipeline on a model and write the result into a folder.

    Weights stay where they are when OUT is the model's folder or a parent of it; elsewhere they are copied once.
    """
    if report is not None:
        require_template_engine()
    job = Job(
        pipeline=pipeline,
        model=model,
        out=out,
        print_after=print_after,
        dump=dump,
        stop_after=stop_after,
        verify_each=not no_verify_each,
        weights=weights.value,
        follow_links=follow_links,
        fill_shapes=not no_shapes,
        allow_scripts=allow_scripts,
        force=force,
        describe=report is not None,
        reproducer=reproducer,
        prove=prove.value,
    )
    with Stages() as stages, render.Progress() as progress:
        outcome = execute(job, progress, stages)
    if report is not None:
        write_report(report, outcome)
    _tell(outcome, timing=timing, quiet=quiet)
    if as_json:
        render.show_json(outcome.as_json())
    elif not quiet:
        _show(outcome)


def _tell(outcome: Outcome, *, timing: bool, quiet: bool) -> None:
    """What the passes and the save said, on stderr."""
    for record in outcome.records:
        render.tell_all("note", () if quiet else record.notes)
        render.tell_all("warning", record.warnings)
    render.tell_all("note", () if quiet else outcome.save_notes)
    if timing:
        total = time.perf_counter() - outcome.began
        for step, seconds in [*outcome.seconds.items(), ("in all", total)]:
            render.tell(f"{seconds:8.3f} s  {step}")


def _show(outcome: Outcome) -> None:
    """A summary: what changed, what was written, what to do next."""
    for name, (before, after) in outcome.changes().items():
        title = f"{name}: " if len(outcome.after) > 1 else ""
        render.show(
            f"{title}{before['nodes']} -> {after['nodes']} nodes, "
            f"{render.change(len(before['inputs']), len(after['inputs']))} inputs, "
            f"{render.change(len(before['outputs']), len(after['outputs']))} outputs"
        )
        for what in ("inputs", "outputs", "symbols"):
            gone = [entry for entry in before[what] if entry not in after[what]]
            if gone:
                render.show(f"  {what} gone: {render.few(gone)}")
        _show_operators(before["operators"], after["operators"])
    for record in outcome.records:
        render.show(f"  {record.text}: {render.counts(record.counts)}")
    for assumption in outcome.assumptions:
        render.show(f"  assumes {assumption}")
    if outcome.proof:
        render.show(f"  {outcome.proof}")
    _show_files(outcome)


def _show_operators(before: Mapping[str, int], after: Mapping[str, int]) -> None:
    """The kinds of operators whose numbers changed, the largest changes first."""
    rows = [(name, before.get(name, 0), after.get(name, 0)) for name in sorted({*before, *after})]
    changed = sorted((row for row in rows if row[1] != row[2]), key=lambda row: -abs(row[1] - row[2]))
    for name, was, now in changed[:MOST_OPERATORS]:
        render.show(f"  {name:<24} {was:>7} -> {now}")
    if len(changed) > MOST_OPERATORS:
        render.show(
            f"  and {render.count(len(changed) - MOST_OPERATORS, 'further kind')} of operators: `onnx-passes diff`"
        )


MOST_OPERATORS = 6  # kinds shown after a run
WEIGHTS = {  # what a save did with weights -> how it is said
    "referred": "{} of weights referred to where they are, nothing copied",
    "copied": "{} of weights copied",
    "moved": "{} of weights moved out of the graph",
}


ROUNDING = frozenset(("load-encodings", "transfer-encodings", "tie-states", "insert-qdq", "kv-io"))
NEXT: tuple[tuple[frozenset[str], str], ...] = (  # passes that ran -> the command that says what they cost or kept
    (
        frozenset(("insert-qdq", "extract-layer")),
        "run {floats} {source} -o {out}-float\nnext: onnx-passes compare {out}-float {out} --within {source}",
    ),
    (frozenset(("insert-qdq",)), "compare {source} {out}"),
    (frozenset(), "verify {source} {out}"),
)


def _show_files(outcome: Outcome) -> None:
    written = (f"{name} ({render.size(count)})" for name, count in outcome.files.items())
    render.show(f"wrote {outcome.out}: {', '.join(written)}")
    for what, count in outcome.weights.items():
        if count:
            render.show(f"  {WEIGHTS[what].format(render.size(count))}")
    ran = {record.name for record in outcome.records}
    following = next(text for passes, text in NEXT if passes <= ran)
    floats = ",".join(record.text for record in outcome.records if record.name not in ROUNDING)
    quoted = {"source": _quoted(outcome.source), "out": _quoted(outcome.out), "floats": shlex.quote(floats)}
    render.show(f"next: onnx-passes {following.format(**quoted)}")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
