"""``diff`` says what differs between two models, by what they mean and not by their bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..ir.core.gc_off import collector_off
from ..ir.core.shown import Shown, Table
from .facts import Dims, GraphFacts, facts_of
from .sources import place_of, program_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from ..ir.program.program import Program
    from .sources import Model

SECTIONS = ("inputs", "outputs", "states", "symbols", "operators", "nodes", "functions", "opsets")
Sections = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Changes:
    """Of one section: what only one side has, and name -> [was, now] of what both have and differs."""

    removed: dict[str, Any]
    added: dict[str, Any]
    changed: dict[str, list[Any]]

    def __bool__(self) -> bool:
        return bool(self.removed or self.added or self.changed)


@dataclass(frozen=True)
class Difference(Shown):
    """What differs between ``a`` and ``b``: graphs that one has alone, and section by section of graphs of both."""

    a: str
    b: str
    same: bool
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    graphs: dict[str, dict[str, Changes]]

    def to_dict(self) -> dict[str, Any]:
        """As ``diff --json`` prints it."""
        return {"schema": 1, **asdict(self)}

    def _rows(self) -> Table:
        rows = [
            (graph, section, mark, name, entry)
            for graph, sections in self.graphs.items()
            for section, found in sections.items()
            for mark, entries in (("-", found.removed), ("+", found.added), ("~", found.changed))
            for name, entry in entries.items()
        ]
        return f"{self.a} and {self.b}", ("graph", "section", "", "name", "what"), rows


def diff(a: Model, b: Model, *, follow_links: bool = False) -> Difference:
    """Compares two models graph by graph; a single graph on either side is compared whatever it is called.

    >>> from onnx_llm_passes import diff
    >>> diff(decoder, decoder).same
    True
    """
    with collector_off():
        before, after = (program_of(model, "diff", follow_links=follow_links) for model in (a, b))
        left, right = _facts(before), _facts(after)
    pairs, only_a, only_b = _pair(left, right)
    graphs = {name: compare(left[in_a], right[in_b]) for name, (in_a, in_b) in pairs.items()}
    same = not only_a and not only_b and not any(any(sections.values()) for sections in graphs.values())
    return Difference(place_of(a, before), place_of(b, after), same, tuple(only_a), tuple(only_b), graphs)


def compare(left: Sections, right: Sections) -> dict[str, Changes]:
    """The changes of each section of two described graphs."""
    return {section: _changes(left[section], right[section]) for section in SECTIONS}


def _changes(left: Mapping[str, Any], right: Mapping[str, Any]) -> Changes:
    return Changes(
        removed={name: left[name] for name in left if name not in right},
        added={name: right[name] for name in right if name not in left},
        changed={name: [left[name], right[name]] for name in left if name in right and left[name] != right[name]},
    )


def _facts(program: Program) -> dict[str, Sections]:
    return {name: _sections(facts_of(model), model) for name, model in program.graphs.items()}


def _sections(graph: GraphFacts, model: ir.Model) -> Sections:
    """The facts of a graph as name -> text (or count) for each section."""
    return {
        "inputs": {value.name: f"{type_text(value.dtype, value.shape)}, {value.role}" for value in graph.inputs},
        "outputs": {value.name: type_text(value.dtype, value.shape) for value in graph.outputs},
        "states": {state.name: f"{state.layout}, {type_text(state.dtype, state.shape)}" for state in graph.states},
        "symbols": {symbol.name: "" for symbol in graph.symbols},
        "operators": graph.operators,
        "nodes": {node.name or ", ".join(str(v.name) for v in node.outputs): node.op_type for node in model.graph},
        "functions": {f"{one.domain}::{one.name}": one.nodes for one in graph.functions},
        "opsets": {domain or "ai.onnx": version for domain, version in graph.opsets.items()},
    }


def type_text(dtype: str | None, shape: Dims | None) -> str:
    """``FLOAT[batch_size, 2, ?]``."""
    inside = "rank ?" if shape is None else ", ".join("?" if dim is None else str(dim) for dim in shape)
    return f"{dtype or '?'}[{inside}]"


def _pair(left: Iterable[str], right: Iterable[str]) -> tuple[dict[str, tuple[str, str]], list[str], list[str]]:
    names_a, names_b = list(left), list(right)
    if len(names_a) == len(names_b) == 1:
        return {names_a[0]: (names_a[0], names_b[0])}, [], []
    both = {name: (name, name) for name in names_a if name in names_b}
    return both, [n for n in names_a if n not in both], [n for n in names_b if n not in both]
