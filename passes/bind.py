"""bind writes one specialization into the graph, every dimension a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ..ir.core.errors import PassRefused, UnknownNameError
from ..ir.core.specialization import Manifest, Specialization
from ..ir.interface.analysis import analysis_of
from ..ir.interface.axes import Axis
from ..ir.interface.dimensions import DimensionAnalysis
from ..ir.program.contracts.sizes import SizesBound
from ..ir.program.program import Program
from ..ir.proof import prove
from ..ir.proof.case import Failure
from ..ir.rewrite.bind_sizes import make_static, static_facts
from ..ir.shapes.infer import Facts
from .base import GraphResult, Pass, Report, merge_results


@dataclass(frozen=True)
class Bind(Pass):
    """Writes the sizes of one specialization into its graph and folds everything that they decide.

    Before → after::

        input_ids: int64[batch_size, seq_len]            →  input_ids: int64[1, 128]
        Shape(x) -> Gather -> Unsqueeze -> Concat -> Reshape(q)   →  Reshape(q, [0, 0, -1, 64])
        image_grid_thw: int64[batch_size, time, h, w]    →  (input gone: only its shape was used)

    1. Inputs, outputs and value infos hold numbers; propagation gives symbols that follow from others.
    2. What is known before the run is folded, as by ``simplify``.
    3. Inputs of which only the shape was used go; inputs that nothing used before stay.
    4. The specialization stays in the program, the graph's others go: they would not fit any more. Which sizes were
       written in stands in the graph's metadata, and ``check`` holds the specialization against it.

    Left alone: other graphs of the program, function bodies. Refused: a specialization that does not fit the graph
    (``check`` says the same), and an output whose size depends on data.

    Attributes:
        spec: The name of the specialization; empty for the only one, and nothing is bound where there are several.
    """

    name: ClassVar[str] = "bind"

    spec: str = ""

    def run(self, program: Program) -> Report:
        """Binds every graph that the specialization belongs to; raises PassRefused with nothing changed."""
        manifest = Manifest.of(program.specializations)
        if not self.spec and len(manifest.specializations) > 1:
            names = ", ".join(item.name for item in manifest.specializations)
            return Report(notes=(f"several sizes ({names}): the graph keeps its symbols",))
        chosen = self._find(manifest.specializations)
        self._settle(program, chosen)
        graphs = {name: model for name, model in program.graphs.items() if chosen.graph in ("", name)}
        proved = {name: self._proved(name, model, chosen) for name, model in graphs.items()}
        results = [(name, self._bound(name, model, *proved[name])) for name, model in graphs.items()]
        several = len(program.graphs) > 1
        bound = (SizesBound(proved[name][0], graphs=(name,) if several else ()) for name in graphs)
        kept = [item for item in manifest.specializations if item is chosen or item.graph not in ("", *graphs)]
        program.specializations = list(kept)
        ports = {v.name for model in program.graphs.values() for v in (*model.graph.inputs, *model.graph.outputs)}
        program.custom_io = {name: kind for name, kind in program.custom_io.items() if name in ports}
        report = merge_results(results)
        gone = len(manifest.specializations) - len(kept)
        notes = (f"{gone} other specializations went: the graph has one size now",) if gone else ()
        return Report(True, report.counts, (*report.notes, *notes), report.warnings, tuple(bound))

    def _find(self, known: Sequence[Specialization]) -> Specialization:
        for item in known:
            if self.spec in ("", item.name):
                return item
        names = [item.name for item in known]
        hint = "" if names else "The program has none: put specialize{…} before this pass."
        raise UnknownNameError("specialization", self.spec, names, where=self.name, hint=hint)

    def _settle(self, program: Program, chosen: Specialization) -> None:
        """Gives a clone nodes of its own; UnknownNameError where the specialization's graph is not there."""
        if chosen.graph and chosen.graph not in program.names:
            raise UnknownNameError("graph", chosen.graph, program.names, where=f"{self.name}, {chosen.name!r}")
        if program.clones:
            program.unshare()

    def _proved(self, name: str, model: ir.Model, chosen: Specialization) -> tuple[dict[str, int], Facts]:
        """The sizes of every symbol and the shapes that follow; changes nothing."""
        canonical = analysis_of(model).dimensions()
        proof = prove(canonical, [chosen], name=name)
        if not proof.sound:
            _refuse_rows(canonical, chosen, proof.all_failures[0], name)
            raise PassRefused(
                f"specialization {chosen.name!r} does not fit: {proof.all_failures[0]}",
                where=f"{self.name}, graph {name!r}",
                hint="`onnx-passes check` lists everything that is wrong.",
            )
        known = {*canonical.needed, *canonical.derived}
        sizes = {symbol: size for symbol, size in canonical.complete(chosen.binding).items() if symbol in known}
        return sizes, static_facts(model, sizes, where=f"{self.name}, graph {name!r}")

    def _bound(self, name: str, model: ir.Model, sizes: dict[str, int], facts: Facts) -> GraphResult:
        fixed = make_static(model, sizes, facts, where=f"{self.name}, graph {name!r}")
        notes = (f"only the shapes of {', '.join(fixed.dropped)} were used: they are gone",) if fixed.dropped else ()
        return GraphResult(model, True, counts={key: n for key, n in fixed.counts.items() if n}, notes=notes)


def _refuse_rows(canonical: DimensionAnalysis, chosen: Specialization, failure: Failure, graph: str) -> None:
    """Raises PassRefused where one row fits and several do not: a picture tower that counts on one picture."""
    rows = [symbol for symbol in canonical.symbols(Axis.BATCH) if chosen.binding.get(symbol, 1) > 1]
    if not rows:
        return
    many = chosen.binding[rows[0]]
    patches = canonical.symbols(Axis.PATCHES)
    alone = {name: max(1, size // many) if name in patches else size for name, size in chosen.binding.items()}
    alone |= dict.fromkeys(rows, 1)
    if prove(canonical, [chosen.model_copy(update={"binding": alone})], name=graph).sound:
        raise PassRefused(
            f"several rows cannot be batched: {failure.node} counts on one", where=f"{Bind.name}, graph {graph!r}",
            found=f"{rows[0]}={many}", wanted=f"{rows[0]}=1",
            hint="Export the graph so that it takes several pictures, or leave batch=1 and run rows one after another.",
        )  # fmt: skip
