"""Small graphs in ONNX text, and passes that do one foolish thing each, for tests of the machinery around passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.ir.program.contracts.sizes import Assumption
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.base import GraphResult, Pass

CHAIN = """\
<ir_version: 10, opset_import: ["" : 18]>
chain (float[N] x) => (float[N] y)
<float[1] w = {2}>
{
   [first] a = Relu (x)
   [second] b = Mul (a, w)
   [third] y = Neg (b)
}"""
BRANCH = """\
<ir_version: 10, opset_import: ["" : 18]>
branch (bool flag, float[N] x) => (float[N] y)
{
   [outer] h = Relu (x)
   [if] y = If (flag) <
      then_branch = yes () => (float[N] p) { [p] p = Neg (h) },
      else_branch = no () => (float[N] q) { [q] q = Abs (h) }>
}"""
CALL = """\
<ir_version: 10, opset_import: ["" : 18, "my" : 1]>
call (float[N] x) => (float[N] y)
{
   [call] y = my.twice (x)
}
<domain: "my", opset_import: ["" : 18]>
twice (a) => (b)
{
   [sum] b = Add (a, a)
}"""
CACHE = """\
<ir_version: 10, opset_import: ["" : 18]>
cache (float[N, S] x, float[N, P] "past.0.key") => (float[N, "P + S"] "present.0.key", float[N, "P + S"] y)
{
   [new] added = Neg (x)
   [join] "present.0.key" = Concat <axis = 1> ("past.0.key", added)
   [out] y = Relu ("present.0.key")
}"""


def program(*texts: str) -> Program:
    """A program of the graphs, named by their own names."""
    models = [ir.from_onnx_text(text) for text in texts]
    return Program({model.graph.name or "": model for model in models})


@dataclass(frozen=True)
class Counts(Pass):
    """Counts one, says one thing of each kind."""

    name: ClassVar[str] = "counts"

    times: int = 1

    def call(self, model: ir.Model) -> GraphResult:
        """Changes nothing."""
        return GraphResult(
            model, False, {"seen": self.times}, ("a note",), ("a warning",), (Assumption("an assumption"),)
        )


@dataclass(frozen=True)
class Refuses(Pass):
    """Refuses every graph whose name holds ``of``, in its condition."""

    name: ClassVar[str] = "refuses"

    of: str = ""

    def requires(self, model: ir.Model) -> None:
        """Raises PassRefused."""
        if self.of in (model.graph.name or ""):
            raise PassRefused("not this one", found=model.graph.name)

    def call(self, model: ir.Model) -> GraphResult:
        """Removes every node, which a refusal must forestall."""
        model.graph.outputs.clear()
        return GraphResult(model, True)


@dataclass(frozen=True)
class Breaks(Pass):
    """Takes the graph apart and then fails as no pass should."""

    name: ClassVar[str] = "breaks"

    def call(self, model: ir.Model) -> GraphResult:
        """Raises ZeroDivisionError."""
        model.graph.outputs.clear()
        raise ZeroDivisionError("by zero")


@dataclass(frozen=True)
class DropsFirstOutput(Pass):
    """Removes the first output and nothing else."""

    name: ClassVar[str] = "drops-first-output"

    def call(self, model: ir.Model) -> GraphResult:
        """Leaves a valid graph."""
        model.graph.outputs.pop(0)
        return GraphResult(model, True)


@dataclass(frozen=True)
class Dangles(Pass):
    """Removes a node that others still read."""

    name: ClassVar[str] = "dangles"

    def call(self, model: ir.Model) -> GraphResult:
        """Leaves an invalid graph."""
        model.graph.remove(model.graph[0])
        return GraphResult(model, True)
