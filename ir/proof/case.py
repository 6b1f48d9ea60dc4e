"""A case is what is proved; a view of it shows one specialization, failures and verdicts say what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import onnx_ir as ir

from ..core.specialization import Specialization, SpecRole
from ..interface.axes import Axis, Buffers
from ..interface.dimensions import DimensionAnalysis, analyze_dimensions
from ..rewrite.bind_sizes import bound_in
from ..symbolic.dims import Dim
from ..symbolic.equations import bound_value
from ..symbolic.symbols import dims_of


@dataclass(frozen=True)
class Failure:
    """Why a specialization, or the set, is not sound.

    Attributes:
        rule: The rule that it breaks.
        item: The symbol, name or tensor that is at fault.
        what: The sentence.
        specialization: The specialization's name; empty for the whole set.
        node: The first node whose shapes clash.
        shapes: The clashing shapes, as numbers with the expressions they came from.
        chain: Where the symbols stand, and why some of them are equal.
        nearest: The nearest value that would work.
    """

    rule: str
    item: str
    what: str
    specialization: str = ""
    node: str = ""
    shapes: tuple[str, ...] = ()
    chain: tuple[str, ...] = ()
    nearest: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it, empty fields left out."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value}

    def __str__(self) -> str:
        where = f"{self.specialization}: " if self.specialization else ""
        parts = [f"{where}{self.what}"]
        parts += [f"at {self.node}"] if self.node else []
        parts += [f"shapes {' and '.join(self.shapes)}"] if self.shapes else []
        parts += [f"because {'; '.join(self.chain)}"] if self.chain else []
        parts += [f"the nearest that works: {self.nearest}"] if self.nearest else []
        return "; ".join(parts)


@dataclass(frozen=True)
class Verdict:
    """One specialization: its failures, none where it is sound."""

    specialization: str
    failures: tuple[Failure, ...] = ()

    @property
    def sound(self) -> bool:
        """True without failures."""
        return not self.failures


@dataclass(frozen=True)
class Proof:
    """What came of one graph: a verdict each, failures of the set, and what could not be decided."""

    graph: str
    verdicts: tuple[Verdict, ...]
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """True where no rule is broken."""
        return not self.failures and all(verdict.sound for verdict in self.verdicts)

    @property
    def all_failures(self) -> list[Failure]:
        """Those of the set, then each specialization's."""
        return [*self.failures, *(failure for verdict in self.verdicts for failure in verdict.failures)]

    def to_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "graph": self.graph,
            "sound": self.sound,
            "specializations": [
                {"name": v.specialization, "sound": v.sound, "failures": [f.to_dict() for f in v.failures]}
                for v in self.verdicts
            ],
            "failures": [failure.to_dict() for failure in self.failures],
            "notes": list(self.notes),
        }


@dataclass(eq=False)
class View:
    """One specialization held against the graph."""

    case: Case
    spec: Specialization
    _values: dict[Dim, int | None] = field(default_factory=dict["Dim", "int | None"], repr=False)

    @property
    def canonical(self) -> DimensionAnalysis:
        """The graph's symbols as the set uses them."""
        return self.case.used

    @cached_property
    def binding(self) -> dict[str, int]:
        """The given sizes of symbols that the graph has."""
        known = {*self.canonical.needed, *self.canonical.derived}
        return {name: size for name, size in self.spec.binding.items() if name in known}

    @cached_property
    def complete(self) -> dict[str, int]:
        """The binding with every symbol that it decides."""
        return self.canonical.complete(self.binding)

    @cached_property
    def reduced(self) -> dict[str, int]:
        """The sizes of the symbols that nothing else decides."""
        solved = self.canonical.solution.solved
        return {name: size for name, size in self.complete.items() if name not in solved}

    @cached_property
    def role(self) -> SpecRole:
        """What it is for: as its name says in the words of manifests, else its role."""
        if self.spec.role is SpecRole.LAYER:  # named after the decode or prefill that it was cut out of
            return self.spec.role
        first = self.spec.name.split("_")[0].lower()
        return _ROLE_NAMES.get(first, self.spec.role)

    @property
    def k(self) -> int | None:
        """Speculative tokens, where it is a decode that says so."""
        return self.spec.k if self.role is SpecRole.DECODE else None

    def size(self, meaning: Axis, group: str = "") -> int | None:
        """How large a dimension is; None where the graph has none."""
        dim = self.canonical.dim(meaning, group)
        return None if dim is None else self.value(dim)

    def value(self, dim: Dim) -> int | None:
        """A dimension of the graph as a number; layers have the same ones."""
        if dim not in self._values:
            self._values[dim] = bound_value(self.canonical.solution.reduce(dim), self.reduced)
        return self._values[dim]

    def chain(self, names: Collection[str]) -> tuple[str, ...]:
        """Where symbols stand with their sizes, and why some are equal."""
        canonical = self.canonical
        lines: list[str] = []
        for name in sorted(names):
            if name in self.complete:
                lines.append(f"{name} = {self.complete[name]} at {canonical.place(name)}")
            lines.extend(line for line in canonical.solution.reasons.get(name, ()) if line not in lines)
        return tuple(lines[:MAX_CHAIN])

    def fail(self, rule: str, item: str, what: str, **more: Any) -> Failure:
        """A failure of this specialization."""
        return Failure(rule, item, what, self.spec.name, **more)


MAX_CHAIN = 8
_ROLE_NAMES = {
    "prefill": SpecRole.PREFILL,
    "decode": SpecRole.DECODE,
    "encoder": SpecRole.ENCODE,
    "vision": SpecRole.VISION,
    "embedding": SpecRole.EMBED,
}


@dataclass(eq=False)
class Case:
    """One graph and the specializations that are to fit it; ``tolerated`` symbols may stand beside its own."""

    canonical: DimensionAnalysis
    specs: Sequence[Specialization]
    graph: str = ""
    tolerated: frozenset[str] = frozenset()
    custom_io: Mapping[str, str] = field(default_factory=dict[str, str])
    bound: Mapping[str, int] = field(default_factory=dict[str, int])
    _dims: dict[ir.Value, tuple[Dim | None, ...] | None] = field(
        default_factory=dict["ir.Value", "tuple[Dim | None, ...] | None"], repr=False
    )

    def dims(self, value: ir.Value) -> tuple[Dim | None, ...] | None:
        """The declared dimensions of an input or output, read once for all specializations."""
        if value not in self._dims:
            found = dims_of(value)
            self._dims[value] = None if found is None else tuple(found)
        return self._dims[value]

    @cached_property
    def used(self) -> DimensionAnalysis:
        """The graph's symbols: with shared buffers where every binding makes past and total one length."""
        plain = self.canonical
        takes = any(state.takes_shared_buffer for state in plain.states)
        if not takes or not self.specs or not all(self._shares(spec) for spec in self.specs):
            return plain
        return analyze_dimensions(plain.model, plain.states, plain.roles, buffers=Buffers.SHARED)

    def _shares(self, spec: Specialization) -> bool:
        """True where the sizes as given make a past as long as what the mask covers."""
        plain = [place for place in self.canonical.places if not place.group]
        past, keys = (
            {bound_value(place.dim, spec.binding) for place in plain if place.meaning is meaning}
            for meaning in (Axis.PAST, Axis.KEYS)
        )
        return past == keys and len(past) == 1 and past.isdisjoint({0, None})

    @cached_property
    def written(self) -> dict[str, int]:
        """The sizes that were written into the graph: by ``bind``, or as a clone."""
        return {**bound_in(self.canonical.model), **self.bound}

    @cached_property
    def views(self) -> list[View]:
        """One view a specialization, in their order."""
        return [View(self, spec) for spec in self.specs]

    def of_role(self, role: SpecRole) -> list[View]:
        """The views of one role."""
        return [view for view in self.views if view.role is role]
