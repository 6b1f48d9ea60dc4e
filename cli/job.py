"""One run of a pipeline, from its text to the files: what the ``run`` command asks of the floors below."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir.core.errors import OnnxPassesError, UnknownNameError
from . import render

if TYPE_CHECKING:
    from ..ir.program.program import PassRecord, Program
    from ..ir.program.save import Saved
    from ..passes.base import Pass
    from ..passes.instruments import Instrument


@dataclass(frozen=True)
class Job:
    """What the user asked for; ``describe`` asks for full descriptions before and after, which a report shows."""

    pipeline: str
    model: Path
    out: Path
    print_after: str | None = None
    dump: Path | None = None
    stop_after: int | None = None
    verify_each: bool = True
    weights: str = "auto"
    follow_links: bool = False
    fill_shapes: bool = True
    allow_scripts: bool = False
    force: bool = False
    describe: bool = False
    reproducer: Path | None = None
    prove: str = "auto"


@dataclass
class Outcome:
    """What came of a job: facts of each graph before and after, what the passes said, and the files."""

    source: Path
    out: Path
    pipeline: str = ""
    before: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    after: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    described: tuple[dict[str, Any], dict[str, Any]] | None = None
    records: list[PassRecord] = field(default_factory=list["PassRecord"])
    assumptions: list[str] = field(default_factory=list[str])
    files: dict[str, int] = field(default_factory=dict[str, int])
    weights: dict[str, int] = field(default_factory=dict[str, int])
    save_notes: tuple[str, ...] = ()
    proof: str = ""
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    began: float = field(default_factory=time.perf_counter)

    def changes(self) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
        """Each graph that came out with the facts of the graph it came from (its own where a pass made it)."""
        only = next(iter(self.before.values())) if len(self.before) == 1 else None
        return {name: (self.before.get(name) or only or facts, facts) for name, facts in self.after.items()}

    def as_json(self) -> dict[str, Any]:
        """The object that ``run --json`` prints."""
        return {
            "schema": 1,
            "source": self.source.as_posix(),
            "out": self.out.as_posix(),
            "pipeline": self.pipeline,
            "graphs": {name: {"before": old, "after": new} for name, (old, new) in self.changes().items()},
            "passes": [
                {
                    "text": record.text,
                    "counts": record.counts,
                    "seconds": round(record.seconds, 6),
                    "notes": list(record.notes),
                    "warnings": list(record.warnings),
                }
                for record in self.records
            ],
            "assumptions": self.assumptions,
            "notes": list(self.save_notes),
            "proof": self.proof,
            "files": self.files,
            "weights": self.weights,
        }


def execute(
    job: Job,
    on_progress: Callable[[str, int, int], None] | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Outcome:
    """Runs the job; where the floors below raise, nothing was written but what ``job.reproducer`` asks for.

    ``on_stage`` is called with what comes next, ``on_progress`` with the bytes of a large file that are written.
    """
    from ..ir.core.gc_off import collector_off
    from ..passes.pipeline import parse_pipeline

    outcome = Outcome(job.model, job.out)
    passes = parse_pipeline(job.pipeline)  # before the model is read: a misspelt pass is refused at once
    _check_print_after(job.print_after, passes)
    from ..ir.interface.analysis import kept_analyses  # loads onnx, which a misspelt pass needs not wait for

    with collector_off():
        on_stage(f"loading {job.model}")
        program = _timed(outcome, "load", lambda: _load(job))
        outcome.before = _facts(program)
        first = _described(program) if job.describe else None
        done, nodes = len(program.history), sum(facts["nodes"] for facts in outcome.before.values())
        with kept_analyses(program.graphs):  # from the first pass to what program.json tells of the graphs
            try:
                _run(job, passes, program, on_stage)
            except OnnxPassesError:
                on_stage("")
                _tell(program.history[done:])  # what went before may be why
                raise
            outcome.records = program.history[done:]
            outcome.seconds.update({record.text: record.seconds for record in outcome.records})
            outcome.pipeline, outcome.assumptions = program.pipeline, program.assumptions
            outcome.after = _facts(program)
            on_stage("running the result beside its original on tiny sizes")
            outcome.proof = _timed(outcome, "prove", lambda: _prove(job, program, done, nodes))
            on_stage("" if on_progress is not None else f"writing {job.out}")  # a large file has a bar of its own
            saved = _timed(outcome, "save", lambda: _save(job, program, on_progress))
        outcome.files = {path.name: path.stat().st_size for path in saved.files}
        outcome.weights = {"referred": saved.referred, "copied": saved.copied, "moved": saved.moved}
        outcome.save_notes = saved.notes
        outcome.described = (first, _described(program)) if first is not None else None
    return outcome


def _tell(records: list[PassRecord]) -> None:
    """What the passes that ran have said."""
    for record in records:
        render.tell_all("note", record.notes)
        render.tell_all("warning", record.warnings)


def _load(job: Job) -> Program:
    from ..ir.program.program import Program

    return Program.load(job.model, follow_links=job.follow_links)


def _save(job: Job, program: Program, on_progress: Callable[[str, int, int], None] | None) -> Saved:
    return program.save(
        job.out, weights=job.weights, force=job.force, fill_shapes=job.fill_shapes, on_progress=on_progress
    )


def _prove(job: Job, program: Program, done: int, before: int) -> str:
    """What running the result beside its original said; raises where the two differ."""
    from ..runtime.verify.prove_run import Prove, prove_result

    return prove_result(lambda: _load(job), program, done, Prove(job.prove), before).text


def _run(job: Job, passes: list[Pass], program: Program, on_stage: Callable[[str], None]) -> None:
    from ..passes.failure import Reproducer
    from ..passes.instruments import Announce
    from ..passes.manager import PassManager

    reproducer = None if job.reproducer is None else Reproducer(job.reproducer, lambda: _load(job))
    watching = [Announce(on_stage, len(passes)), *_instruments(job)]
    manager = PassManager(passes, watching, allow_scripts=job.allow_scripts, reproducer=reproducer)
    manager.run(program)


def _instruments(job: Job) -> list[Instrument]:
    """The flags that watch a run, as instruments."""
    from ..passes.instruments import Dump, PrintAfter, StopAfter, VerifyEach

    chosen: list[Instrument] = []
    if job.verify_each:
        chosen.append(VerifyEach())
    if job.print_after is not None:
        chosen.append(PrintAfter(job.print_after, sys.stderr))
    if job.dump is not None:
        chosen.append(Dump(job.dump))
    if job.stop_after is not None:
        chosen.append(StopAfter(job.stop_after))
    return chosen


def _check_print_after(name: str | None, passes: list[Pass]) -> None:
    names = [pass_.name for pass_ in passes]
    if name is not None and name not in names:
        raise UnknownNameError(
            "pass of this pipeline", name, names, where="--print-after", hint=f"It has {', '.join(names)}."
        )


def _facts(program: Program) -> dict[str, dict[str, Any]]:
    from ..api.facts import brief

    return {name: brief(model) for name, model in program.graphs.items()}


def _described(program: Program) -> dict[str, Any]:
    from ..api.inspect import inspect

    return inspect(program).to_dict()


def _timed(outcome: Outcome, step: str, work: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    result = work()
    outcome.seconds[step] = time.perf_counter() - began
    return result
