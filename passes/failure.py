"""An exception inside a pass becomes one of our errors that says where, and leaves a reproducer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import onnx_ir as ir

from ..ir.core.errors import OnnxPassesError, PassRefused, WriteError

if TYPE_CHECKING:
    from ..ir.program.program import Program
    from .base import Pass

ADVICE = "Put the .onnx file beside the weights of the source, then run the text of pipeline.txt on it."
MAX_EMBEDDED = 64 << 20  # bytes of weights inside a graph that a reproducer still writes

Error = TypeVar("Error", bound=OnnxPassesError)


def _embedded_bytes(model: ir.Model) -> int:
    """The bytes of weights that lie inside the graph."""
    tensors = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None and not isinstance(tensor, ir.ExternalTensor))


class InternalError(OnnxPassesError):
    """A pass broke in a way it does not know of: a bug of the pass, not of the graph."""


def add_context(error: Error, where: str) -> Error:
    """Puts ``where`` before what an error already says, and keeps its type."""
    error.where = f"{where}: {error.where}" if error.where else where
    error.args = (f"{where}: {error}",)
    return error


def add_pass(error: Error, name: str, ran: Sequence[str]) -> Error:
    """Says which pass failed and after which; a pass that named itself in ``where`` is not named twice."""
    own = re.match(rf"(?:pass )?(['\"]?){re.escape(name)}\1(?:[,:]\s*|$)", error.where)
    if own is not None:
        line, error.where = str(error), error.where[own.end() :]
        error.args = (line[own.end() :].removeprefix(": "),)
    after = f" (after {', '.join(ran)})" if ran else ""
    return add_context(error, f"pass {name!r}{after}")


def as_ours(error: Exception) -> OnnxPassesError:
    """Turns whatever a pass raised into an error of ours; ours stay what they are."""
    if isinstance(error, OnnxPassesError):
        return error
    cause = error.__cause__
    if isinstance(error, ir.passes.InvariantError) and isinstance(cause, OnnxPassesError):
        return cause
    if isinstance(error, ir.passes.PreconditionError):
        return PassRefused(str(error), found=cause)
    if isinstance(error, OSError):
        return WriteError("the machine failed", found=error, hint="Look at the file named, then run again.")
    return InternalError(
        "the pass broke",
        found=f"{type(error).__name__}: {error}",
        hint="This is a bug of the pass, nothing was written; `--debug` shows the traceback to report.",
    )


@dataclass(frozen=True)
class Failure:
    """A run that failed: the program as it stands, the passes that ran, those still to run, and why.

    ``intact`` where the failing pass, the first of ``rest``, has changed nothing.
    """

    program: Program
    ran: Sequence[Pass]
    rest: Sequence[Pass]
    error: OnnxPassesError
    intact: bool


@dataclass(frozen=True)
class Reproducer:
    """Where a failing run leaves the graphs before the failing pass, and the text of the passes still to run.

    A pass that refuses has changed nothing, so its graphs are written as they are. One that broke may have left a half
    edited graph: then ``reload`` (the program as it was loaded) is run again up to that pass.
    """

    folder: Path
    reload: Callable[[], Program] | None = None

    def write(self, failure: Failure) -> Path:
        """Writes ``pipeline.txt``, ``error.txt`` and each graph as .onnxtxt and .onnx; returns the folder made.

        Weights outside the graph stay references: beside them the .onnx can be run. A graph with many weights inside
        is left as text only.
        """
        from .instruments import graph_text
        from .pipeline import print_pipeline

        graphs, state = self._graphs_before(failure)
        digest = hashlib.sha256(str(failure.error).encode()).hexdigest()[:8]
        folder = self.folder / f"{failure.rest[0].name}-{digest}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pipeline.txt").write_text(f"{print_pipeline(failure.rest)}\n", encoding="utf-8")
        (folder / "error.txt").write_text(f"{failure.error}\n{state}\n{ADVICE}\n", encoding="utf-8")
        for name, model in graphs.items():
            (folder / f"{name}.onnxtxt").write_text(graph_text(model), encoding="utf-8")
            if _embedded_bytes(model) <= MAX_EMBEDDED:
                (folder / f"{name}.onnx").write_bytes(ir.to_proto(model).SerializeToString())
        return folder

    def _graphs_before(self, failure: Failure) -> tuple[dict[str, ir.Model], str]:
        if failure.intact:
            return failure.program.graphs, "The graphs are those before the failing pass."
        if self.reload is None:
            return failure.program.graphs, "The graphs are those the failing pass left; it may have changed them."
        fresh = self.reload()
        for pass_ in failure.ran:
            pass_.run(fresh)
        return fresh.graphs, "The graphs are those before the failing pass, made again from the source."
