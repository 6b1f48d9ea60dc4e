"""The manager runs passes over a program in order, instruments around each, one record and one error line each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from ..ir.core.errors import PassRefused, UsageError, expect
from ..ir.interface.analysis import Known, forget, kept_analyses
from ..ir.program.program import PassRecord, Program
from .base import Pass, Report
from .failure import Failure, Reproducer, add_pass, as_ours
from .instruments import Instrument, VerifyEach
from .pipeline import print_pass


class PassManager:
    """An ordered list of passes and who watches them: ``VerifyEach`` where nobody is named, as in the command.

    A pass with ``needs_scripts`` runs code that the caller wrote: it is refused unless ``allow_scripts``.
    With a ``reproducer`` a failing run leaves the pipeline's rest and the graphs before the failing pass in its folder.
    """

    def __init__(
        self,
        passes: Sequence[Pass],
        instruments: Sequence[Instrument] | None = None,
        *,
        allow_scripts: bool = False,
        reproducer: Reproducer | None = None,
    ) -> None:
        for pass_ in passes:
            _check_pass(pass_, allow_scripts)
        self.passes = tuple(passes)
        self.instruments = (VerifyEach(),) if instruments is None else tuple(instruments)
        self.reproducer = reproducer

    def run(self, program: Program) -> Program:
        """Runs every pass on ``program`` in place and returns ``program`` itself, changed: no copy.

        Its history, pipeline and contracts grow; `verify` reads the original anew from its file.

        Raises what the failing pass raised, prefixed with the pass and those before it. A refused pass has changed
        nothing; the passes before it have.
        """
        expect(Program, program, "PassManager.run", "Program.load(path) reads a file or folder.")
        ran: list[Pass] = []
        with kept_analyses(program.graphs) as watch:
            for instrument in self.instruments:
                instrument.start(program)
            for index, pass_ in enumerate(self.passes):
                if all(instrument.should_run(pass_, program) for instrument in self.instruments):
                    self._step(program, pass_, index, ran)
                    ran.append(pass_)
                    watch()
        return program

    def _step(self, program: Program, pass_: Pass, index: int, ran: Sequence[Pass]) -> None:
        for instrument in self.instruments:
            instrument.before(pass_, program)
        began, report = time.perf_counter(), None
        try:
            report = _run_pass(pass_, program)
            _record(program, pass_, report, time.perf_counter() - began)
            for instrument in self.instruments:
                instrument.after(pass_, program, report)
        except Exception as error:
            ours = add_pass(as_ours(error), pass_.name, [done.name for done in ran])
            intact = report is None and isinstance(ours, PassRefused | UsageError)
            self._leave_reproducer(Failure(program, ran, self.passes[index:], ours, intact))
            raise ours from error

    def _leave_reproducer(self, failure: Failure) -> None:
        """Adds to the error where the reproducer lies; the caller's own mistakes need none."""
        error = failure.error
        if self.reproducer is None or isinstance(error, UsageError):
            return
        try:
            folder = self.reproducer.write(failure)
        except Exception as second:  # whatever printing a graph that broke raises, the first error is the one to tell
            error.args = (f"{error} (no reproducer was left: {second})",)
            return
        error.args = (f"{error} The graph before the pass and the pipeline are in {str(folder)!r}.",)


def _check_pass(pass_: object, allow_scripts: bool) -> None:
    if not isinstance(pass_, Pass):
        raise UsageError("not a pass", found=type(pass_).__name__, wanted="an instance of a subclass of Pass")
    if pass_.needs_scripts and not allow_scripts:
        raise UsageError(
            f"pass {pass_.name!r} runs a Python script, which is not allowed here",
            hint="Read the script, then allow it with `--allow-scripts` (in Python: `allow_scripts=True`).",
        )


def _run_pass(pass_: Pass, program: Program) -> Report:
    """Every graph's preconditions, then the pass, then every graph's postconditions."""
    for model in program.graphs.values():
        pass_.requires(model)
    try:
        report = pass_.run(program)
    except BaseException:
        _edited(program, frozenset())
        raise
    _edited(program, pass_.preserves)  # whatever it reports: a script of a user's may edit and not know
    for model in program.graphs.values():
        pass_.ensures(model)
    return report


def _edited(program: Program, preserved: frozenset[Known]) -> None:
    for model in program.graphs.values():
        forget(model, preserved)


def _record(program: Program, pass_: Pass, report: Report, seconds: float) -> None:
    text = print_pass(pass_)
    step = len(program.pass_texts)
    program.history.append(PassRecord(text, dict(report.counts), seconds, report.notes, report.warnings, pass_.name))
    program.pipeline = f"{program.pipeline},{text}" if program.pipeline else text
    for contract in report.contracts:
        if not (contract.assumes and contract in program.contracts):  # what is assumed twice is recorded once
            program.contracts.append(replace(contract, step=step))
