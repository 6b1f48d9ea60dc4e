"""Which of a graph's own names stand for the same dimension is found by role and by propagation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import onnx_ir as ir

from ..shapes.demands import Demands, Relation, demands_of
from ..states import Layout, Pairing, State, find_states
from ..symbolic.dims import Call, Dim, Expr, free_symbols
from ..symbolic.equations import Equation, Solution, bound_value
from ..symbolic.symbols import dims_of
from .axes import Axis, AxisContext, Buffers, Place, group_of, kept_whole, places_of
from .roles import Role, find_roles

MAX_SWEEPS = 4  # each sweep may make more symbols one; exporters need two at most


@dataclass(eq=False)
class DimensionAnalysis:
    """The dimensions of one graph under meanings, and how its symbols depend on each other.

    Attributes:
        model: The graph.
        states: Its states.
        roles: What its inputs are.
        places: Each known dimension of inputs and state outputs with its meaning.
        solution: Symbols that equal others, and why.
        demands: What the nodes demand of shapes in the symbols that are left.
        needed: The symbols of the graph's inputs, in order: a binding must give each.
        derived: The symbols that stand in outputs alone: a run tells them.
    """

    model: ir.Model
    states: Sequence[State]
    roles: Mapping[str, Role]
    places: tuple[Place, ...]
    solution: Solution
    demands: Demands
    needed: tuple[str, ...]
    derived: tuple[str, ...]
    by_symbol: dict[str, Place] = field(default_factory=dict[str, Place])
    buffers: Buffers = Buffers.GROWN

    @cached_property
    def _first(self) -> dict[tuple[Axis, str], Place]:
        """The first place of each meaning and group."""
        return {(place.meaning, place.group): place for place in reversed(self.places)}

    def meaning(self, symbol: str) -> Axis:
        """What a symbol is; OTHER where no role tells."""
        place = self.by_symbol.get(symbol)
        return place.meaning if place is not None else Axis.OTHER

    def place(self, symbol: str) -> str:
        """Where a symbol stands first, for messages: ``input_ids[1] (seq)``."""
        place = self.by_symbol.get(symbol)
        return f"{place} ({place.meaning.value})" if place is not None else "an output"

    def dim(self, meaning: Axis, group: str = "") -> Dim | None:
        """The dimension of that meaning over the symbols that are left, None where the graph has none.

        ``total`` is past and new, whether or not an input spells it.
        """
        if (place := self._first.get((meaning, group))) is not None:
            return self.solution.reduce(place.dim)
        if meaning is Axis.TOTAL:
            past, seq = self.dim(Axis.PAST, group), self.dim(Axis.SEQ)
            return past + seq if past is not None and seq is not None else None
        return None

    def symbols_in(self, dim: Dim | None) -> frozenset[str]:
        """The graph's own symbols that a dimension is written with."""
        return free_symbols(dim)

    def name_of(self, meaning: Axis, group: str = "") -> str | None:
        """The symbol that stands for a meaning by itself; None where it is a number or an expression."""
        for place in self.places:
            alone = isinstance(place.dim, Expr) and place.dim.is_symbol
            if place.meaning is meaning and place.group == group and alone:
                return str(place.dim)
        return None

    def groups(self, meaning: Axis) -> list[str]:
        """The groups in which a meaning occurs, the plain one first."""
        return sorted({place.group for place in self.places if place.meaning is meaning})

    def symbols(self, meaning: Axis) -> list[str]:
        """The graph's own names for a meaning, in the order of the inputs."""
        return [name for name in self.needed if self.meaning(name) is meaning]

    def size(self, meaning: Axis, binding: Mapping[str, int], group: str = "") -> int | None:
        """How large a dimension is under a binding; None where the graph has none, or it stays open."""
        dim = self.dim(meaning, group)
        return None if dim is None else bound_value(dim, self.complete(binding))

    def complete(self, binding: Mapping[str, int]) -> dict[str, int]:
        """The binding extended to every symbol that it decides, under the graph's own names.

        A given size is kept even where it contradicts another: that is for the proof to tell.
        """
        known = Solution(self.solution.rank)
        for name, size in binding.items():
            known.add(Equation(self.solution.reduce(_symbol(name)), size, "given"))
        found: dict[str, int] = {}
        for name in (*self.needed, *self.derived):
            value = known.reduce(self.solution.reduce(_symbol(name)))
            if isinstance(value, int):
                found[name] = value
        return {**found, **binding}

    def bind(self, sizes: Mapping[Axis, int], group: str = "") -> dict[str, int]:
        """A binding of the graph's inputs out of sizes by meaning; meanings that the graph does not have are left out.

        The result may miss symbols that no given meaning decides: :attr:`needed` says which there are.
        """
        known = Solution(self.solution.rank)
        for meaning, size in sizes.items():
            dim = self.dim(meaning, group)
            if dim is not None:
                known.add(Equation(dim, size, meaning.value))
        values = ((name, known.reduce(self.solution.reduce(_symbol(name)))) for name in self.needed)
        return {name: value for name, value in values if isinstance(value, int)}


def analyze_dimensions(
    model: ir.Model,
    states: Sequence[State] | None = None,
    roles: Mapping[str, Role] | None = None,
    *,
    buffers: Buffers = Buffers.GROWN,
) -> DimensionAnalysis:
    """Finds what every dimension of inputs and states is, and which symbols must be equal; changes nothing.

    ``states`` and ``roles`` are those of ``find_states`` and ``find_roles``, found here where they are not given;
    ``buffers`` says how the caller holds caches that a fused attention would take both ways.
    """
    states = find_states(model) if states is None else states
    roles = find_roles(model, states) if roles is None else roles
    setting = AxisContext.of(model, states, roles, buffers)
    places = tuple(places_of(setting))
    needed = tuple(_input_symbols(model))
    derived = tuple(name for name in _output_symbols(model) if name not in needed)
    by_symbol = _first_places(places)
    solution = Solution(_ranking(needed, derived, by_symbol))
    for equation in (*_same_places(places), *_state_sizes(setting)):
        solution.add(equation)
    demands = _propagate(setting, solution, places)
    return DimensionAnalysis(model, states, roles, places, solution, demands, needed, derived, by_symbol, buffers)


def _propagate(setting: AxisContext, solution: Solution, places: Sequence[Place]) -> Demands:
    """Sweeps until no sweep makes two symbols one; the demands of the last sweep."""
    demands = demands_of(setting.model, dict(solution.solved))
    for _ in range(MAX_SWEEPS):
        found = [solution.add(equation) for equation in _demanded(demands)]
        found += [solution.add(equation) for equation in _declared_outputs(setting, demands)]
        found += [solution.add(equation) for equation in _mask_lengths(setting, solution, places)]
        if not any(found):
            break
        demands = demands_of(setting.model, dict(solution.solved))
    return demands


def _symbol(name: str) -> Dim:
    return Expr((((name,), 1),))


def _input_symbols(model: ir.Model) -> Iterator[str]:
    values = [value for value in model.graph.inputs if not value.is_initializer()]
    yield from dict.fromkeys(n for v in values for d in dims_of(v) or () for n in sorted(free_symbols(d)))


def _output_symbols(model: ir.Model) -> Iterator[str]:
    yield from dict.fromkeys(n for v in model.graph.outputs for d in dims_of(v) or () for n in sorted(free_symbols(d)))


def _first_places(places: Sequence[Place]) -> dict[str, Place]:
    """The first place where each symbol stands alone, else the first where it stands at all."""
    found: dict[str, Place] = {}
    for place in sorted(places, key=lambda p: not (isinstance(p.dim, Expr) and p.dim.is_symbol)):
        for name in free_symbols(place.dim):
            found.setdefault(name, place)
    return found


_GIVES_WAY = (Axis.HEAD_DIM, Axis.TOTAL, Axis.KEYS)  # derived from others by nature


def _ranking(
    needed: Sequence[str], derived: Sequence[str], by_symbol: Mapping[str, Place]
) -> Callable[[str], tuple[int, ...]]:
    """Which of two equal symbols gives way: one of outputs, one that is derived by nature, the later one."""
    order = {name: index for index, name in enumerate((*needed, *derived))}

    def rank(name: str) -> tuple[int, ...]:
        place = by_symbol.get(name)
        gives_way = place is not None and place.meaning in _GIVES_WAY
        return (name not in order, name in derived, gives_way, order.get(name, 0))

    return rank


def _same_places(places: Sequence[Place]) -> Iterator[Equation]:
    """Batches are one batch, sequences one length, pasts of one group one past; a static 1 may be broadcast."""
    first: dict[tuple[Axis, str], Place] = {}
    for place in places:
        if place.meaning not in (Axis.BATCH, Axis.SEQ, Axis.PAST, Axis.CACHE_BATCH) or place.dim == 1:
            continue
        anchor = first.setdefault((place.meaning, place.group), place)
        if anchor.dim != place.dim:
            yield Equation(anchor.dim, place.dim, f"{place} and {anchor} are both {place.meaning.value}")


def _state_sizes(setting: AxisContext) -> Iterator[Equation]:
    """What leaves a state has the size of what entered it, and the new rows where it grows."""
    length = setting.tokens[1] if len(setting.tokens) > 1 else None
    for state in setting.states:
        if state.input is None or state.output is None or state.pairing is not Pairing.BOTH:
            continue
        pairs = zip(dims_of(state.input) or (), dims_of(state.output) or (), strict=False)
        for axis, (old, new) in enumerate(pairs):
            if old is None or new is None:
                continue
            wanted = _after(setting, state, axis, old, length)
            if wanted is not None and wanted != new:
                yield Equation(wanted, new, f"{state.output.name}[{axis}] is {wanted}, as state {state.name} demands")


def _after(setting: AxisContext, state: State, axis: int, old: Dim, length: Dim | None) -> Dim | None:
    """The dimension of a state after a run; None where its own shape does not tell."""
    if axis != state.axis or state.traits.keeps_size:
        return old
    if state.layout is Layout.DELTA:
        return length
    if state.is_ring or kept_whole(state, setting.buffers):
        return old  # a ring or a buffer is written over
    return None if state.layout is Layout.WINDOW or length is None else old + length


def _demanded(demands: Demands) -> Iterator[Equation]:
    """Dimensions that a node wants equal, or broadcasts: two symbols of one axis are one size."""
    for demand in demands.items:
        if demand.relation not in (Relation.EQUAL, Relation.BROADCAST):
            continue
        sides = (demand.left, demand.right)
        exact = demand.relation is Relation.EQUAL or not any(_may_be_one(side) for side in sides)
        if exact and not any(name.startswith("?") for side in sides for name in free_symbols(side)):
            yield Equation(*sides, f"{demand.place} takes both")


def _may_be_one(dim: Dim) -> bool:
    """A number, or what the smaller of two numbers is: broadcasting takes it for 1 wherever it is."""
    return isinstance(dim, int) or any(isinstance(atom, Call) for mono, _ in dim.terms for atom in mono)


def _declared_outputs(setting: AxisContext, demands: Demands) -> Iterator[Equation]:
    """Symbols of outputs are what propagation says of them."""
    for value in setting.model.graph.outputs:
        for axis, (said, found) in enumerate(zip(dims_of(value) or (), demands.facts.shape(value) or (), strict=False)):
            known = not any(name.startswith("?") for name in free_symbols(found))
            if isinstance(said, Expr) and said != found and known:
                yield Equation(said, found, f"{value.name}[{axis}] comes out as {found}")


def _mask_lengths(setting: AxisContext, solution: Solution, places: Sequence[Place]) -> Iterator[Equation]:
    """A mask whose length nothing else tells covers past and new, or the tokens where nothing is carried."""
    growing = [s for s in setting.states if s.traits.longer_output and s.input is not None]
    whole = [s for s in growing if not group_of(s)]
    others = any(role is Role.FEATURES for role in setting.roles.values())
    written = any(s.layout is not Layout.RECURRENT and not s.traits.longer_output for s in setting.states)
    if others or written or len(setting.tokens) < 2 or setting.tokens[1] is None or (growing and not whole):
        return
    kept = next((p.dim for p in places if p.meaning is Axis.CTX and not p.group), None)
    past = next((p.dim for p in places if p.meaning is Axis.PAST and not p.group), 0)
    length = kept if kept is not None else past + setting.tokens[1]
    used = {n for p in places if p.meaning is not Axis.KEYS for n in free_symbols(solution.reduce(p.dim))}
    for place in places:
        if place.meaning is Axis.KEYS and not (free_symbols(solution.reduce(place.dim)) & used):
            why = "holds past and new" if whole else "covers the tokens"
            yield Equation(place.dim, length, f"{place} {why}")
