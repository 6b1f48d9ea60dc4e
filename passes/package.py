"""package writes the clones of a decoder as files, as branches of one graph, or as local functions of one graph."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar

from ..ir.core.errors import PassRefused
from ..ir.core.specialization import Specialization
from ..ir.program.contracts.sizes import Packed
from ..ir.program.program import Program
from ..ir.rewrite.pack.packing import pack
from .base import Pass, Report


class Packaging(enum.Enum):
    """How several graphs leave the tool."""

    FILES = "files"
    BRANCHES = "branches"
    FUNCTIONS = "functions"


@dataclass(frozen=True)
class Package(Pass):
    """Makes the graphs that a program is specialized for one graph, or leaves them files.

    Before → after, with ``as=branches``::

        prefill.onnx, decode_k0.onnx, decode_k4.onnx
          →   model.onnx: If(length of input_ids is 32, prefill, If(… is 1, decode_k0, decode_k4))

    1. ``files``: one file a graph, all on one weight file. Nothing changes.
    2. ``branches``: nested Ifs pick the graph by the sizes of the inputs, so that one session holds the weights once.
       Inputs of other sizes are an error of the run.
    3. ``functions``: the same, and each branch is a call of a local function, ``Decode_K4`` of domain onnx_llm_passes.
    4. Weights that all graphs share are the whole's; constants that folding gave one of them are its own.

    Left alone: graphs that no specialization belongs to. Refused: graphs whose inputs or outputs differ by name or
    type, or that no input's size tells apart.

    Attributes:
        as_: How the graphs leave the tool.
        graph: What the one graph is called.
    """

    name: ClassVar[str] = "package"

    as_: Packaging = Packaging.FILES
    graph: str = "model"

    def run(self, program: Program) -> Report:
        """Packs the graphs of the program; raises PassRefused before it changes anything."""
        if self.as_ is Packaging.FILES:
            return Report(
                notes=(f"{len(program.names)} files share one weight file",) if len(program.names) > 1 else ()
            )
        specs = program.specializations
        names = [name for name in program.names if any(spec.graph == name for spec in specs)]
        if len(names) < 2:
            raise PassRefused(
                "there are no graphs to pack into one",
                where=self.name,
                found=", ".join(names) or "no graph with a specialization of its own",
                hint="Put clone-decode before this pass.",
            )
        graphs = {
            name: program.graph(name) if name in program.clones else program.graphs[name].clone() for name in names
        }
        bindings = {spec.graph: dict(spec.binding) for spec in specs}
        calls = self.as_ is Packaging.FUNCTIONS
        packed, sizes = pack(graphs, bindings, name=self.graph, owner=self.name, calls=calls)
        rest = {name: program.graphs[name] for name in program.names if name in program.graphs and name not in names}
        if self.graph in rest:
            raise PassRefused("a graph has this name", where=self.name, found=self.graph, hint="Give graph=NAME.")
        program.graphs = {self.graph: packed, **rest}
        program.clones = {}
        program.bound = {name: sizes for name, sizes in program.bound.items() if name in rest}
        program.specializations = [self._moved(spec, names, sizes) for spec in specs]
        return Report(True, {"graphs": len(names)}, contracts=(Packed(graph=self.graph, parts=tuple(names)),))

    def _moved(self, spec: Specialization, names: list[str], sizes: dict[str, dict[str, int]]) -> Specialization:
        """A specialization of a packed graph: of the whole, with the sizes of symbols that had to be made up."""
        if spec.graph not in names:
            return spec
        more = {symbol: found[spec.graph] for symbol, found in sizes.items() if spec.graph in found}
        return spec.model_copy(update={"graph": self.graph, "binding": {**spec.binding, **more}})
