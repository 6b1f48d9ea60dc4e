"""Measures a decoder layer cut out alone against another one, on what the whole decoder gives them for real texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...ir.core.errors import UsageError
from ...ir.core.specialization import Specialization
from ...ir.program.program import Program
from ...ir.quantization.qdq import read_qdq
from ...ir.states import find_states
from ..session.legalize import legalized
from ..session.session import Session
from ..verify.layer_play import Arrays, Run, WholeGraph, layer_specs
from .metrics import measure
from .programs import HIDDEN, Comparison, Row


def compare_layers(reference: Program, other: Program, whole: Program, samples: Sequence[np.ndarray]) -> Comparison:
    """Measures one layer against another: hidden states and the new rows of each state; both of the same sizes.

    ``whole`` is the program that they were cut out of; it runs the texts, as far as its caches hold, and feeds both.
    Integer caches are put on their grids and taken off. UsageError where the layers are not of one kind.
    """
    pair = [_only_layer(program) for program in (reference, other)]
    if pair[0].binding != pair[1].binding or pair[0].graph != pair[1].graph:
        raise UsageError("the two are not the same layer", found=", ".join(spec.graph for spec in pair))
    stages = [WholeGraph.of(whole, program, spec) for program, spec in zip((reference, other), pair, strict=True)]
    sides = [_Side.of(program, spec) for program, spec in zip((reference, other), pair, strict=True)]
    tokens = 0
    for sample in samples:
        text = _fitting(stages[0], sample)
        tokens += text.shape[1]
        for run in stages[0].runs(text, stages[0].length) if text.size else ():
            for stage, side in zip(stages, sides, strict=True):
                side.look(stage, run)
    if not tokens:
        raise UsageError("the texts are shorter than one run", found=f"{stages[0].length} tokens a run")
    before, after = (side.collected() for side in sides)
    found = Comparison(tokens=tokens)
    found.rows = [Row(what, None, measure(base, after[what])) for what, base in before.items() if what in after]
    return found


def _only_layer(program: Program) -> Specialization:
    specs = layer_specs(program)
    if len(specs) != 1:
        raise UsageError(
            "two programs of one layer each are compared",
            where=str(program.source),
            found=", ".join(spec.graph for spec in specs) or "no layer",
            hint="Cut it out with clone-decode{ctx=N k=0},extract-layer{index=N}.",
        )
    return specs[0]


def _fitting(stage: WholeGraph, sample: np.ndarray) -> np.ndarray:
    """Whole runs of a text, the same in every row of the batch."""
    count = min(len(sample), stage.player.room) // stage.length * stage.length
    return np.tile(np.asarray(sample[:count]), (stage.player.batch or 1, 1))


@dataclass(eq=False)
class _Side:
    """One layer, run; what is compared is collected run by run."""

    session: Session
    kinds: Mapping[str, str]
    grids: Mapping[str, tuple[float, int]]
    integers: Mapping[str, np.dtype]
    parts: dict[str, list[np.ndarray]] = field(default_factory=dict[str, "list[np.ndarray]"])

    @classmethod
    def of(cls, program: Program, spec: Specialization) -> _Side:
        model = program.graph(spec.graph)
        states = find_states(model)
        kinds = {s.output.name or "": f"new_{s.kind}" for s in states if s.output is not None}
        table = read_qdq(model).encodings
        grids = {name: (e.scale[0], e.zero_point[0]) for name, e in table.items() if e.per_tensor}
        for state in states:  # new rows are on the past's grid
            if state.input is not None and state.output is not None and state.input.name in grids:
                grids[state.output.name or ""] = grids[state.input.name]
        typed = {v.name or "": v.dtype for v in model.graph.inputs if v.dtype is not None and v.name in grids}
        integers = {name: dtype.numpy() for name, dtype in typed.items() if dtype.is_integer()}
        return cls(Session(legalized(model).model, spec.graph), kinds, grids, integers)

    def look(self, stage: WholeGraph, run: Run) -> None:
        """Runs the layer on one run of the whole graph."""
        inputs = stage.inputs(self.session.input_names, run)
        for name, array in self.session.run(self._on_grids(inputs)).items():
            _, rows = stage.answers(name, self._off_grid(name, array), run)
            self.parts.setdefault(self.kinds.get(name, HIDDEN), []).append(rows.astype(np.float32).reshape(-1))

    def collected(self) -> Arrays:
        """Everything of one kind as one array."""
        return {what: np.concatenate(parts) for what, parts in self.parts.items()}

    def _on_grids(self, inputs: Arrays) -> Arrays:
        """Floats where the layer takes integers become those: rounded half to even and clamped, as QuantizeLinear."""
        found = dict(inputs)
        for name, dtype in self.integers.items():
            if found[name].dtype.kind == "f":
                (scale, zero), limits = self.grids[name], np.iinfo(dtype)
                found[name] = np.clip(np.rint(found[name] / scale) + zero, limits.min, limits.max).astype(dtype)
        return found

    def _off_grid(self, name: str, array: np.ndarray) -> np.ndarray:
        if array.dtype.kind not in "iu":
            return array
        scale, zero = self.grids[name]
        return (array.astype(np.float32) - zero) * scale
