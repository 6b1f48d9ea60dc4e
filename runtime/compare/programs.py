"""Runs two graphs over the same texts, each with its own cache, and measures logits, hidden rows and new cache rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ...ir.core.constants import constant_of
from ...ir.core.errors import UnknownNameError, UsageError
from ...ir.core.operators import names
from ...ir.core.operators.walks import PAIRS, SAME_PLACE
from ...ir.interface.logits import logits_output
from ...ir.program.joined import joined
from ...ir.program.program import Program
from ...ir.quantization.qdq import read_qdq
from ...ir.states import State
from ..calibrate.feed import WHOLE, Feeder, graph_of
from ..decode.host import Arrays, new_rows
from ..decode.step import Step
from ..session.rounded import rounded_copy
from .metrics import LOGIT_METRICS, METRICS, measure

_ASIDE = SAME_PLACE | {"Reshape"} | {name for _, name in PAIRS}
_HEADS = names(lambda row: (made := row.product) and made.rows == 0 and not made.integers and not made.slides, None)
HIDDEN, LOGITS = "hidden", "logits"


@dataclass(frozen=True)
class Row:
    """One compared tensor: what it is, its layer where it has one, and its measures."""

    what: str
    layer: int | None
    measures: Mapping[str, float]

    @property
    def label(self) -> str:
        """``logits``, or ``layer 3 new_key``."""
        return self.what if self.layer is None else f"layer {self.layer} {self.what}"


@dataclass
class Comparison:
    """All rows, logits first; the logits themselves for a plot; and how many tokens were compared.

    ``rounded`` says that halves were evaluated result by result.
    """

    rows: list[Row] = field(default_factory=list[Row])
    logits: tuple[np.ndarray, np.ndarray] | None = None
    tokens: int = 0
    rounded: bool = False

    def row(self, what: str) -> Row | None:
        """The first row of that kind."""
        return next((row for row in self.rows if row.what == what), None)

    def to_dict(self) -> dict[str, object]:
        """As ``compare --json`` prints it."""
        rows = [{"tensor": row.what, "layer": row.layer, **row.measures} for row in self.rows]
        return {"schema": 1, "tokens": self.tokens, "tensors": rows}


def compare_programs(
    reference: Program,
    other: Program,
    samples: Sequence[np.ndarray],
    *,
    chunk: int = 64,
    graph: str | None = None,
) -> Comparison:
    """Measures ``other`` against ``reference``: the graph of that name where one has it, else its prefill.

    Integer caches are taken off their grids; halves are evaluated with every result rounded. A graph that takes a fixed
    number of tokens decides the chunks of both; where it answers fewer rows, the last ones are compared. Raises
    UsageError where the two do not answer alike, PassRefused for a graph that cannot be fed chunk by chunk.
    """
    reference, other = joined(reference), joined(other)
    capacity = max((len(sample) for sample in samples), default=0)
    if not capacity:
        raise UsageError("there is no text to compare on")
    sides = _sides((reference, other), chunk, capacity, graph)
    lengths = [min(side.feeder.usable(len(sample)) for side in sides) for sample in samples]
    if not any(lengths):
        raise UsageError("no text is long enough", found=f"{capacity} tokens", wanted=f"{sides[0].feeder.chunk}")
    for sample, length in zip(samples, lengths, strict=True):
        for side in sides:
            side.look(sample[:length])
    _align(*sides)
    before, after = (side.collected() for side in sides)
    found = Comparison(tokens=sum(lengths), rounded=any(side.rounded for side in sides))
    for key, base in before.items():
        if key not in after:
            continue
        what, layer = key
        names = [*METRICS, *LOGIT_METRICS] if what == LOGITS else None
        found.rows.append(Row(what, layer, measure(base, after[key], names)))
    if (LOGITS, None) in before and (LOGITS, None) in after:
        found.logits = before[LOGITS, None], after[LOGITS, None]
    return found


Key = tuple[str, int | None]


def _sides(programs: tuple[Program, Program], chunk: int, capacity: int, graph: str | None) -> list[_Side]:
    """Both graphs, fed the same chunks."""
    if graph is not None and not any(graph in program.names for program in programs):
        raise UnknownNameError("graph", graph, [name for program in programs for name in program.names])
    names = [graph_of(program, graph if graph in program.names else None, capacity) for program in programs]
    chosen = list(zip(programs, names, strict=True))
    sides = [_Side.of(program, name, chunk, capacity) for program, name in chosen]
    fixed = {side.feeder.chunk for side in sides if side.feeder.fixed}
    if len(fixed) > 1:
        found = " and ".join(f"{side.feeder.chunk} in {name!r}" for side, name in zip(sides, names, strict=True))
        raise UsageError("the two graphs take different numbers of tokens a run", found=found, hint="Say --graph NAME.")
    whole = all(side.feeder.chunk == WHOLE for side in sides)
    if fixed and not whole:
        chunk = fixed.pop()
        sides = [
            side if side.feeder.fixed else _Side.of(*where, chunk, capacity)
            for side, where in zip(sides, chosen, strict=True)
        ]
    return sides


def _align(first: _Side, second: _Side) -> None:
    """Where one answers the last rows of a run alone, the other's last rows are what is compared."""
    for key in ((LOGITS, None), (HIDDEN, None)):
        parts = [side.parts.get(key, []) for side in (first, second)]
        if len(parts[0]) != len(parts[1]):
            continue
        for index, arrays in enumerate(zip(*parts, strict=True)):
            rows = min(len(array) for array in arrays)
            for part, array in zip(parts, arrays, strict=True):
                part[index] = array[len(array) - rows :]


@dataclass(eq=False)
class _Side:
    """One graph, run; what is compared is collected text by text."""

    feeder: Feeder
    answer: str
    hidden: str | None
    grids: Mapping[str, tuple[float, int]]
    rounded: bool
    parts: dict[Key, list[np.ndarray]] = field(default_factory=dict[Key, "list[np.ndarray]"])

    @classmethod
    def of(cls, program: Program, graph: str, chunk: int, capacity: int) -> _Side:
        model = program.graph(graph)
        feeder = Feeder.of(model, chunk, capacity, hidden_past=True)
        answer = logits_output(feeder.model, feeder.states)
        if answer is None:
            raise UsageError("a graph without an answer beside its cache cannot be compared", where=str(program.source))
        copy = feeder.model.clone()
        hidden = _expose_hidden(copy, answer.name or "")
        grids = {name: (e.scale[0], e.zero_point[0]) for name, e in read_qdq(model).encodings.items() if e.per_tensor}
        run = rounded_copy(copy)  # what is fed and carried is told by the graph as it is
        feeder.host.open(run)
        return cls(feeder, answer.name or "", hidden, grids, run is not copy)

    def look(self, tokens: np.ndarray) -> None:
        """Runs one text."""
        for step, results in self.feeder.feed(tokens):
            self._keep((LOGITS, None), results[self.answer], rank=1)
            if self.hidden is not None:
                self._keep((HIDDEN, None), results[self.hidden], rank=1)
            for state in self.feeder.states:
                self._keep((f"new_{state.kind}", state.layer), self._new_rows(state, results, step), rank=0)

    def collected(self) -> dict[Key, np.ndarray]:
        """Everything of one kind as one array."""
        return {key: np.concatenate(parts) for key, parts in self.parts.items()}

    def _keep(self, key: Key, array: np.ndarray, *, rank: int) -> None:
        flat = array.reshape(-1, array.shape[-1]) if rank else array.reshape(-1)
        self.parts.setdefault(key, []).append(flat.astype(np.float32))

    def _new_rows(self, state: State, results: Arrays, step: Step) -> np.ndarray:
        """The rows that this run added, off their grid."""
        assert state.output is not None
        name = state.output.name or ""
        array = new_rows(state, results[name], step)
        if state.axis is not None:
            array = np.moveaxis(array, state.axis, 0)  # a layout may hand keys out the other way round
        if array.dtype.kind in "iu":
            past = state.input.name or "" if state.input is not None else name
            scale, zero = self.grids.get(name) or self.grids[past]  # new rows are on the past's grid
            array = (array.astype(np.float32) - zero) * scale
        return array


def _expose_hidden(model: ir.Model, answer: str) -> str | None:
    """Makes what the last multiplication reads an output: the rows that logits are made of."""
    value = next(output for output in model.graph.outputs if output.name == answer)
    for _ in range(16):
        node = value.producer()
        if node is None or (node.op_type not in _ASIDE and node.op_type not in _HEADS):
            return None
        source = node.inputs[0]
        if source is None:
            return None
        if node.op_type in _HEADS:
            if not _is_weight(node.inputs[1]):
                return None  # a product of two computed tensors is no head
            if not source.is_graph_output():
                model.graph.outputs.append(source)
            return source.name
        value = source
    return None


def _is_weight(value: ir.Value | None) -> bool:
    """True for a constant, be it moved or taken off a grid first."""
    for _ in range(16):
        if value is None or constant_of(value) is not None:
            return value is not None
        node = value.producer()
        if node is None or (node.op_type not in _ASIDE and node.op_type != "Transpose"):
            return False
        value = node.inputs[0]
    return False
