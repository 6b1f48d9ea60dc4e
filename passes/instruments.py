"""Instruments watch a pipeline: they verify each pass, time it, print or dump graphs, stop early."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import onnx_ir as ir

from ..ir.core.errors import OutputError, ProgramInvalid
from ..ir.core.verifier import check_structure
from ..ir.interface.analysis import analysis_of
from .failure import add_context

if TYPE_CHECKING:
    from ..ir.program.program import Program
    from .base import Pass, Report

DUMP_MARK = ".onnx-passes-dump"  # a folder that holds this file is ours to clean


class Instrument:
    """Does nothing; a subclass overrides what it needs."""

    def start(self, program: Program) -> None:
        """Called once before the first pass."""

    def should_run(self, pass_: Pass, program: Program) -> bool:
        """Whether the pass may run; one instrument that says no is enough to leave it out."""
        return True

    def before(self, pass_: Pass, program: Program) -> None:
        """Called before each pass that runs."""

    def after(self, pass_: Pass, program: Program, report: Report) -> None:
        """Called after each pass that ran."""


class VerifyEach(Instrument):
    """Checks every graph before the first pass and after each one; raises ProgramInvalid.

    A state that had an input and an output at the start must keep both or lose both.
    """

    def __init__(self, checks: Sequence[Callable[[ir.Model], None]] = (check_structure,)) -> None:
        self.checks = tuple(checks)
        self._states: dict[str, list[Ends]] = {}

    def start(self, program: Program) -> None:
        """Checks the program as it came, and notes its states."""
        self._check(program)
        self._states = {name: _paired(model) for name, model in program.graphs.items()}

    def after(self, pass_: Pass, program: Program, report: Report) -> None:
        """Checks what the pass left."""
        self._check(program)

    def _check(self, program: Program) -> None:
        for name, model in program.graphs.items():
            try:
                for check in self.checks:
                    check(model)
                self._states[name] = check_paired(model, self._states.get(name, ()))
            except ProgramInvalid as error:
                raise add_context(error, f"graph {name!r}") from None


@dataclass(frozen=True)
class Ends:
    """The input and the output of a state, and the names they had."""

    input: ir.Value
    output: ir.Value
    names: tuple[str | None, str | None]


def _paired(model: ir.Model) -> list[Ends]:
    """The ends of each state that has both; what is only passed through, or lives in one branch, may lose one."""
    return [
        Ends(state.input, state.output, (state.input.name, state.output.name))
        for state in analysis_of(model).states
        if state.input is not None and state.output is not None and state.traits.changes
        if state.branch is None  # the other branch gives the same output without a past
    ]


def check_paired(model: ir.Model, states: Iterable[Ends]) -> list[Ends]:
    """The states that still have both ends; ProgramInvalid where one has only its input or only its output left.

    An end counts by its value or its name, and where a pass gave a state another output, by what the graph tells. A
    past without rows may go alone.
    """
    inputs = {*model.graph.inputs, *(value.name for value in model.graph.inputs)}
    outputs = {*model.graph.outputs, *(value.name for value in model.graph.outputs)}
    left_over = list[Ends]()
    for ends in states:
        has_input = ends.input in inputs or ends.names[0] in inputs
        has_output = ends.output in outputs or ends.names[1] in outputs
        whole = has_input == has_output or (has_output and _is_empty(ends.input))
        if not whole and not any(ends.input is now.input for now in _paired(model)):
            left, gone = ends.names if has_input else reversed(ends.names)
            raise ProgramInvalid(
                "a carried state has lost one of its two ends",
                found=f"{left!r} without {gone!r}",
                wanted="both or neither",
            )
        if has_input or has_output:
            left_over.append(ends)  # of one that is gone another value may take the name
    return left_over


def _is_empty(value: ir.Value) -> bool:
    """Whether it has no rows: the past of a first chunk, which ``bind`` takes out."""
    return value.shape is not None and 0 in value.shape


class Announce(Instrument):
    """Says which pass of how many comes next, before it runs."""

    def __init__(self, on_stage: Callable[[str], None], number: int) -> None:
        self.on_stage = on_stage
        self.number = number
        self._done = 0

    def start(self, program: Program) -> None:
        """Counts from one again."""
        self._done = 0

    def before(self, pass_: Pass, program: Program) -> None:
        """Names the pass."""
        self._done += 1
        self.on_stage(f"pass {self._done} of {self.number}: {pass_.name}")


class Timing(Instrument):
    """Measures each pass; ``seconds`` holds (pass text, seconds) in the order they ran."""

    def __init__(self) -> None:
        self.seconds: list[tuple[str, float]] = []
        self._began = 0.0

    def start(self, program: Program) -> None:
        """Forgets an earlier run."""
        self.seconds = []

    def before(self, pass_: Pass, program: Program) -> None:
        """Starts the clock."""
        self._began = time.perf_counter()

    def after(self, pass_: Pass, program: Program, report: Report) -> None:
        """Stops the clock."""
        from .pipeline import print_pass

        self.seconds.append((print_pass(pass_), time.perf_counter() - self._began))


class PrintAfter(Instrument):
    """Writes every graph as ONNX text to a stream after each pass of the given name."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name = name
        self.stream = stream

    def after(self, pass_: Pass, program: Program, report: Report) -> None:
        """Writes the graphs if this is the pass."""
        if pass_.name != self.name:
            return
        for name, model in program.graphs.items():
            self.stream.write(f"// {name} after {pass_.name}\n{graph_text(model)}\n")


class Dump(Instrument):
    """Writes the graphs after pass number n as ``003-name.onnxtxt`` into a folder, ``000-input`` being what came.

    A folder that an earlier dump made is cleaned first; one that holds anything else is refused with OutputError.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = 0

    def start(self, program: Program) -> None:
        """Makes or cleans the folder, writes the program as it came."""
        clean_folder(self.folder, DUMP_MARK)
        self._number = 0
        self._write("input", program)

    def after(self, pass_: Pass, program: Program, report: Report) -> None:
        """Writes what the pass left."""
        self._number += 1
        self._write(pass_.name, program)

    def _write(self, name: str, program: Program) -> None:
        for graph, model in program.graphs.items():
            tail = f"-{graph}" if len(program.graphs) > 1 else ""
            path = self.folder / f"{self._number:03d}-{name}{tail}.onnxtxt"
            path.write_text(graph_text(model), encoding="utf-8")


class StopAfter(Instrument):
    """Runs the first ``number`` passes only: halve it to find the pass that goes wrong."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._ran = 0

    def start(self, program: Program) -> None:
        """Counts from zero."""
        self._ran = 0

    def should_run(self, pass_: Pass, program: Program) -> bool:
        """Says no once the number is reached."""
        return self._ran < self.number

    def after(self, pass_: Pass, program: Program, report: Report) -> None:
        """Counts."""
        self._ran += 1


def graph_text(model: ir.Model) -> str:
    """One graph as ONNX text, weights left out."""
    return ir.to_onnx_text(model, exclude_initializers=True)


def clean_folder(folder: Path, mark: str) -> None:
    """Empties a folder that carries ``mark``, or makes it; raises OutputError where it holds anything not ours."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).is_file():
        raise OutputError(
            f"{str(folder)!r} holds files that were not written here",
            wanted="an empty folder, one that is not there yet, or one of an earlier run",
            hint="Name another folder.",
        )
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{str(folder)!r} is a file", wanted="a folder")
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.onnxtxt"):
        path.unlink()
    (folder / mark).write_text("Written by onnx-passes; its files are replaced by the next run.\n", encoding="utf-8")
