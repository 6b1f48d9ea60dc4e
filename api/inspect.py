"""``inspect`` says what a program's inputs are for, which states it carries, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..ir.core.errors import UnknownNameError
from ..ir.core.gc_off import collector_off
from ..ir.core.shown import Shown, Table
from .facts import GraphFacts, facts_of
from .sources import place_of, program_of

if TYPE_CHECKING:
    from ..ir.program.program import Program
    from .sources import Model

SCHEMA = 1


@dataclass(frozen=True)
class Inspection(Shown):
    """What ``inspect`` found: the graphs by name, the pipelines that made them, what they assume of inputs."""

    source: str
    binding: dict[str, int]
    made_by: tuple[str, ...]
    assumptions: tuple[str, ...]
    graphs: dict[str, GraphFacts]

    def to_dict(self) -> dict[str, Any]:
        """As ``inspect --json`` prints it."""
        facts = asdict(self)
        return {"source": facts.pop("source"), "schema": SCHEMA, **facts}

    def _rows(self) -> Table:
        columns = ("graph", "value", "type", "shape", "role or layout", "bytes")
        return self.source, columns, [row for name, graph in self.graphs.items() for row in _table(name, graph)]


def _table(name: str, graph: GraphFacts) -> Sequence[Sequence[object]]:
    carried = {end for state in graph.states for end in (state.input, state.output)}
    rows = [(name, one.name, one.dtype, one.shape, one.role, None) for one in graph.inputs if one.name not in carried]
    rows += [(name, one.name, one.dtype, one.shape, "output", None) for one in graph.outputs if one.name not in carried]
    return rows + [(name, one.name, one.dtype, one.shape, one.layout, one.bytes) for one in graph.states]


def inspect(model: Model, *, bind: Mapping[str, int] | None = None, follow_links: bool = False) -> Inspection:
    """Inputs with roles, outputs, states, symbols, operators, sizes of every graph; no weight is read.

    ``bind``: symbol -> size, to count the bytes of states. InputError for what cannot be read, UnknownNameError for a
    symbol that no value has.

    >>> from onnx_llm_passes import inspect
    >>> found = inspect(decoder)
    >>> found.graphs["model"].states[0].layout
    'append'
    """
    with collector_off():
        program = program_of(model, "inspect", follow_links=follow_links)
        check_binding(bind or {}, program)
        return Inspection(
            source=place_of(model, program),
            binding=dict(bind or {}),
            made_by=tuple(provenance.pipeline for provenance in program.earlier),
            assumptions=tuple(program.assumptions),
            graphs={name: facts_of(graph, bind) for name, graph in program.graphs.items()},
        )


def check_binding(binding: Mapping[str, int], program: Program) -> None:
    """Raises UnknownNameError for a bound symbol that no value of the program has."""
    from ..ir.symbolic.symbols import symbols_of

    known = {name for model in program.graphs.values() for name in symbols_of(model)}
    for name in binding:
        if name not in known:
            hint = f"The model's symbols are {', '.join(sorted(known))}." if known else "The model has no symbols."
            raise UnknownNameError("symbol", name, known, where="--bind", hint=hint)
