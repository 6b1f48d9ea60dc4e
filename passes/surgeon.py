"""Runs a person's own onnx-graphsurgeon script on every graph."""

from __future__ import annotations

import contextlib
import runpy
import sys
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import onnx_ir as ir

from ..ir.core.errors import InputError, PassRefused
from ..ir.program.program import Program
from ..ir.serialization.interop import from_surgeon, to_surgeon
from .base import GraphResult, Pass, Report, merge_results

FUNCTION = "edit"


@dataclass(frozen=True)
class Surgeon(Pass):
    """Runs the function ``edit(graph)`` of a Python script on each graph, as an onnx-graphsurgeon Graph.

    ``surgeon{script=my.py}`` with ``def edit(graph): graph.name = "mine"`` gives the same graph with another name.

    1. ``edit`` changes the Graph in place, or returns another one.
    2. Metadata, quantization annotations and references to weights come back by name.
    3. Nothing is changed unless the script ran to its end on every graph.
    4. It runs code: only with ``--allow-scripts``, never because a saved program names it. What the script does is not
       proved; ``onnx-passes verify`` compares.

    Attributes:
        script: The Python file with the function ``edit``.
    """

    name: ClassVar[str] = "surgeon"
    needs_scripts: ClassVar[bool] = True

    script: Path

    def call(self, model: ir.Model) -> GraphResult:
        """Edits one graph in place; raises InputError for the script's file, PassRefused where it fails."""
        return _install(model, _edited(model, _load(self.script), self.script))

    def run(self, program: Program) -> Report:
        """Edits copies of all graphs, then puts them in the places of the old ones."""
        function = _load(self.script)
        edited = {name: _edited(model, function, self.script) for name, model in program.graphs.items()}
        return merge_results([(name, _install(program.graphs[name], model)) for name, model in edited.items()])


def _load(script: Path) -> Callable[[Any], Any]:
    if not script.is_file():
        raise InputError("the script is not there", found=repr(str(script)), wanted="a Python file")
    with _guarded(script):
        names = runpy.run_path(str(script))
    function = names.get(FUNCTION)
    if not callable(function):
        raise InputError(f"the script {str(script)!r} has no function {FUNCTION!r}", wanted=f"def {FUNCTION}(graph)")
    return function


def _edited(model: ir.Model, function: Callable[[Any], Any], script: Path) -> ir.Model:
    with _guarded(script):
        graph = to_surgeon(model)
        result = function(graph)
        return from_surgeon(graph if result is None else result, model)


def _install(model: ir.Model, edited: ir.Model) -> GraphResult:
    before, after = model.graph.num_nodes(), edited.graph.num_nodes()
    model.graph = edited.graph
    model.functions.clear()
    model.functions.update(edited.functions)
    model.ir_version = edited.ir_version
    counts = {"nodes before": before, "nodes after": after}
    return GraphResult(model, True, counts, notes=("what the script did is not proved; compare with `verify`",))


@contextlib.contextmanager
def _guarded(script: Path) -> Generator[None]:
    """Sends what the script prints to stderr, and names its line where it fails."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(script)]
        at = f", line {lines[-1]}" if lines else ""
        raise PassRefused(f"the script {str(script)!r}{at} failed", found=f"{type(error).__name__}: {error}") from error
