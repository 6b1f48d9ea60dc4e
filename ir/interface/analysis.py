"""What is known of one version of a graph is computed once, when it is first asked for, and dropped by an edit."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import onnx_ir as ir

from ..shapes.infer import Facts, propagate
from ..states import State, find_states
from .axes import Buffers
from .dimensions import DimensionAnalysis, analyze_dimensions
from .roles import Role, find_roles

_KEY = "onnx-llm-passes analysis"
_INHERITED = "onnx-llm-passes inherited roles"


class Known(enum.Enum):
    """The analyses of a graph that a pass may preserve."""

    STATES = "states"
    ROLES = "roles"
    FACTS = "facts"
    DIMENSIONS = "dimensions"


ALL = frozenset(Known)
"""What a pass preserves that leaves the graphs as they are."""


class GraphAnalysis:
    """The states, roles, shape facts and dimensions of one version of a graph.

    All hold live references into the graph: they are right until it is edited, and then :meth:`forget` drops them.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self._states: list[State] | None = None
        self._roles: dict[str, Role] | None = None
        self._facts: Facts | None = None
        self._dimensions: dict[Buffers, DimensionAnalysis] = {}

    @property
    def states(self) -> list[State]:
        """What ``find_states`` finds."""
        if self._states is None:
            self._states = find_states(self.model)
        return self._states

    @property
    def roles(self) -> dict[str, Role]:
        """The role of each input, by name, as ``find_roles`` finds it; a clone has those of its base."""
        if self._roles is None:
            inherited = _inherited(self.model)
            self._roles = find_roles(self.model, self.states) if inherited is None else inherited
        return self._roles

    @property
    def facts(self) -> Facts:
        """What ``propagate`` tells under the graph's own symbols, value infos believed."""
        if self._facts is None:
            self._facts = propagate(self.model)
        return self._facts

    def dimensions(self, buffers: Buffers = Buffers.GROWN) -> DimensionAnalysis:
        """What ``analyze_dimensions`` finds for caches held that way."""
        if buffers not in self._dimensions:
            self._dimensions[buffers] = analyze_dimensions(self.model, self.states, self.roles, buffers=buffers)
        return self._dimensions[buffers]

    def forget(self, preserved: Collection[Known] = ()) -> None:
        """Drops what an edit made wrong: all but ``preserved``; roles rest on states, dimensions on both."""
        kept = set(preserved)
        for known, based in ((Known.ROLES, {Known.STATES}), (Known.DIMENSIONS, {Known.STATES, Known.ROLES})):
            if not based <= kept:
                kept.discard(known)
        if Known.ROLES not in kept:
            _meta(self.model).pop(_INHERITED, None)
        self._states = self._states if Known.STATES in kept else None
        self._roles = self._roles if Known.ROLES in kept else None
        self._facts = self._facts if Known.FACTS in kept else None
        self._dimensions = self._dimensions if Known.DIMENSIONS in kept else {}


def analysis_of(model: ir.Model) -> GraphAnalysis:
    """The analysis that is kept of this version of the graph, else a new one that nobody keeps."""
    kept = _meta(model).get(_KEY)
    return kept if isinstance(kept, GraphAnalysis) and kept.model is model else GraphAnalysis(model)


@dataclass(frozen=True, eq=False)
class _Inherited:
    """The roles that a clone has from its base, and the inputs that it had then, which they are right for."""

    roles: Mapping[str, Role]
    inputs: list[tuple[ir.Value, str | None]]


def inherit_roles(clone: ir.Model, base: ir.Model) -> None:
    """Gives a clone the roles of its base: fewer open sizes change no meaning, and may hide what shows it.

    With all sizes bound a run of one token looks like others: ``input_ids [1, 1]`` has the type and shape of a counter.
    """
    _meta(clone)[_INHERITED] = _Inherited(dict(analysis_of(base).roles), _inputs(clone))


def _inherited(model: ir.Model) -> dict[str, Role] | None:
    """The roles from its base, as long as the graph has the very inputs that it had as a clone."""
    found = _meta(model).get(_INHERITED)
    return dict(found.roles) if isinstance(found, _Inherited) and found.inputs == _inputs(model) else None


def _inputs(model: ir.Model) -> list[tuple[ir.Value, str | None]]:
    return [(value, value.name) for value in model.graph.inputs]


def forget(model: ir.Model, preserved: Collection[Known] = ()) -> None:
    """Says that the graph was edited: what is kept of it is dropped, but for what the edit ``preserved``."""
    analysis_of(model).forget(preserved)


@contextmanager
def kept_analyses(graphs: Mapping[str, ir.Model]) -> Generator[Callable[[], None]]:
    """While this lasts, :func:`analysis_of` keeps what it finds of ``graphs``; who edits one says so by :func:`forget`.

    Gives a function that takes in graphs which came since. Inside another it leaves what that one keeps.
    """
    watched: list[ir.Model] = []

    def watch() -> None:
        for model in graphs.values():
            if _KEY not in _meta(model):
                _meta(model)[_KEY] = GraphAnalysis(model)
                watched.append(model)

    watch()
    try:
        yield watch
    finally:
        for model in watched:
            _meta(model).pop(_KEY, None)


def _meta(model: ir.Model) -> dict[str, object]:
    """onnx_ir's own place for what passes find out: never written to a file, and left behind by a clone."""
    return model.meta  # pyright: ignore[reportReturnType, reportUnknownMemberType, reportUnknownVariableType]
