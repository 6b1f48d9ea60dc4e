"""extract-layer cuts out one decoder layer as a graph of its own, to quantize, compare and ship alone."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ..ir.core.errors import PassRefused, UsageError
from ..ir.core.specialization import Manifest, Specialization, SpecRole
from ..ir.interface.dimensions import analyze_dimensions
from ..ir.program.clone import Clone, materialize
from ..ir.program.contracts.sizes import LayerCut
from ..ir.program.program import Program
from ..ir.rewrite.layer.cut import Cut, Shared, cut_layer
from ..ir.rewrite.scalar_ranges import squeeze_ranges
from ..ir.symbolic.symbols import dims_of
from .base import Pass, Report
from .simplify import Simplify


class LayerRole(enum.Enum):
    """What the graphs are for that a layer is cut out of."""

    DECODE = "decode"
    PREFILL = "prefill"


@dataclass(frozen=True)
class ExtractLayer(Pass):
    """Cuts one decoder layer out, of static sizes: hidden states, mask and past in, hidden states and new rows out.

    Before → after, with ``index=1 role=decode`` behind ``clone-decode{ctx=128}``::

        decode: input_ids [1, 1], attention_mask, position_ids, past_key_values.0.key … → logits, present.0.key …
          →   decode_layer1: hidden [1, 1, D], attention_mask, position_ids, past_key_values.1.key, …value
                             → hidden [1, 1, D], present.1.key [1, H, 1, size], present.1.value (the new rows)

    1. A layer begins at the last value through which everything goes on to its states and to the answer, and ends
       where the next one begins; the last ends where the ones before it do, before the final norm. Names only number.
    2. Every input and output has the name that its tensor has in the whole graph, so encodings calibrated there fit
       (``load-encodings``, ``transfer-encodings``), and the whole graph says what the layer must answer (``verify``).
    3. Caches leave as the rows that the run adds, under the output's name; the host owns them. States without rows
       (convolutions, recurrences, rings) leave whole, and a note says so.
    4. ``shared=inside``: masks and rotary angles are computed in the layer, from the inputs of the whole graph.
       ``shared=inputs``: they come in, computed once for all layers.
    5. Where a fused operator hides the hidden states (``SkipLayerNormalization``), its sum and its norm replace it.
    6. Of several graphs with that role (K = 0, 4 …) each gives one; all others leave the program.

    Refused: sizes that nothing decides, layers inside functions or branches, layers that read what others carry.

    Attributes:
        index: Which layer, counted as the states' names count, else from 0.
        role: The graphs to cut: ``decode`` or ``prefill``.
        shared: Where what all layers take is computed.
    """

    name: ClassVar[str] = "extract-layer"

    index: int
    role: LayerRole = LayerRole.DECODE
    shared: Shared = Shared.INSIDE

    def __post_init__(self) -> None:
        """UsageError for a negative index."""
        if self.index < 0:
            raise UsageError("too small", where=f"pass {self.name!r}, index", found=self.index, wanted=">= 0")

    def run(self, program: Program) -> Report:
        """Replaces the graphs of the program by one layer each; raises PassRefused before it changes anything."""
        chosen = self._chosen(program)
        cuts = {spec.name: self._cut(program, spec) for spec in chosen}
        bases = {spec.name: spec.graph or program.names[0] for spec in chosen}
        names = {spec.name: f"{spec.graph or spec.name}_layer{self.index}" for spec in chosen}
        program.specializations = list(Manifest.of([_moved(spec, names[spec.name]) for spec in chosen]).specializations)
        program.graphs = {names[name]: cut.model for name, cut in cuts.items()}
        program.clones = {}
        program.bound = {names[spec.name]: dict(spec.binding) for spec in chosen}
        ports = {v.name for model in program.graphs.values() for v in (*model.graph.inputs, *model.graph.outputs)}
        program.custom_io = {name: kind for name, kind in program.custom_io.items() if name in ports}
        nodes = sum(len(cut.model.graph) for cut in cuts.values())
        return Report(
            True,
            {"layers": len(cuts), "nodes": nodes},
            notes=tuple(_note(names[name], cut) for name, cut in cuts.items()),
            warnings=tuple(text for cut in cuts.values() for text in _warned(cut)),
            contracts=tuple(_cut_of(bases[spec.name], names[spec.name], cuts[spec.name]) for spec in chosen),
        )

    def _chosen(self, program: Program) -> list[Specialization]:
        """The specializations of the role; PassRefused where the program has none."""
        known = program.specializations
        chosen = [
            spec
            for spec in known
            if spec.role.value == self.role.value and (spec.graph or program.names[0]) in program.names
        ]
        if not chosen:
            put = "clone-decode{ctx=N}" if self.role is LayerRole.DECODE else "clone-decode{ctx=N prefill=N}"
            raise PassRefused(
                f"the program has no {self.role.value} graph of known sizes",
                where=self.name,
                found=", ".join(f"{spec.name} ({spec.role.value})" for spec in known) or "no specialization",
                hint=f"Put {put} before this pass.",
            )
        return chosen

    def _cut(self, program: Program, spec: Specialization) -> Cut:
        graph = spec.graph or program.names[0]
        where = f"{self.name}, graph {graph!r}"
        model = _static(program.graph(graph), spec, where)
        model.graph.name = f"{graph}_layer{self.index}"
        Simplify().call(model)
        cut = cut_layer(model, self.index, self.shared, owner=self.name, where=where)
        Simplify().call(cut.model)
        return cut


def _static(model: ir.Model, spec: Specialization, where: str) -> ir.Model:
    """A copy whose dimensions are numbers; PassRefused for symbols that the specialization does not decide."""
    sizes: Mapping[str, int] = analyze_dimensions(model).complete(spec.binding)
    copy = materialize(model, Clone(spec.graph, sizes), spec.graph)
    squeeze_ranges(copy, ExtractLayer.name)
    for value in copy.graph.inputs:
        dims = dims_of(value)
        if dims is None or not all(isinstance(dim, int) for dim in dims):
            raise PassRefused(f"the shape of {value.name!r} is not decided", where=where, found=str(value.shape))
    return copy


def _moved(spec: Specialization, graph: str) -> Specialization:
    return spec.model_copy(update={"name": graph, "graph": graph, "role": SpecRole.LAYER, "logits_rows": None})


def _note(graph: str, cut: Cut) -> str:
    return f"{graph}: hidden states come in as {cut.hidden!r} and leave as {cut.result!r}"


def _warned(cut: Cut) -> list[str]:
    if not cut.whole:
        return []
    return [f"{', '.join(cut.whole)}: not made of rows, or it is not known which are new; the whole state leaves"]


def _cut_of(base: str, name: str, cut: Cut) -> LayerCut:
    return LayerCut(graph=name, base=base, layer=cut.number, hidden=cut.hidden, result=cut.result)
