"""The rules of a recipe are matched with the tensors of graphs: what each tensor is put on, and what each rule took."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from ..interface.places import Place, Places, places_of
from ..interface.projections import Part
from ..states import State, find_states
from .groups import Group, encoding_groups
from .layout_ops import axes_after, is_one_to_one
from .qdq import plain_pairs

if TYPE_CHECKING:
    from .recipe import Recipe, Rule

FLOAT = "float"
_KINDS = {"key": Part.K, "value": Part.V}


@dataclass(frozen=True)
class Choice:
    """What one tensor is put on.

    Attributes:
        bits: Of a number.
        symmetric: The grid is the same on both sides of 0.
        block: Inputs of a channel that share a scale; 0 for the whole channel, None for the whole tensor.
        method: How its range is chosen; empty for what the calibration says.
        strict: A grid of other bits that a file brought is made anew; where not, the file's word counts.
    """

    bits: int
    symmetric: bool
    block: int | None = None
    method: str = ""
    strict: bool = False

    @property
    def per_channel(self) -> bool:
        """One scale a channel, or more."""
        return self.block is not None


@dataclass(frozen=True)
class _Candidate:
    kind: str
    name: str
    place: Place
    words: frozenset[str]


@dataclass(eq=False)
class Taken:
    """What the rules of a recipe took, over all graphs of a program: tensors by name, and those that kept the rule."""

    recipe: Recipe
    where: str
    took: dict[tuple[int, str], set[str]] = field(default_factory=dict[tuple[int, str], set[str]])
    kept: dict[tuple[int, str], set[str]] = field(default_factory=dict[tuple[int, str], set[str]])

    def check(self, kinds: Iterable[str], *, optional: bool = False) -> None:
        """RecipeInvalid for a rule that took none of the tensors of these kinds that it speaks of."""
        from .recipe import RecipeInvalid

        for number, rule in enumerate(self.recipe.rules):
            said = [kind for kind in rule.kinds() if kind in kinds]
            if not said or rule.optional or optional or any(self.took.get((number, kind)) for kind in said):
                continue
            raise RecipeInvalid(
                f"rule {number + 1} takes no tensor: no {' or '.join(said)} {_place_of(rule)}",
                where=self.where,
                hint="`onnx-passes recipe FILE MODEL` shows the layers and roles of the model; `optional: true` lets a "
                "rule take nothing.",
            )

    def notes(self, kinds: Iterable[str]) -> tuple[str, ...]:
        """A sentence for each rule: how many tensors it took, and how many of them a later one gave other bits."""
        found: list[str] = []
        for number, rule in enumerate(self.recipe.rules):
            parts: list[str] = []
            for kind, said in rule.kinds().items():
                took = self.took.get((number, kind), set[str]())
                lost = len(took - self.kept.get((number, kind), set[str]())) if "bits" in said else 0
                if kind in kinds:
                    bits = f" at {said['bits']}" if "bits" in said else ""
                    parts.append(f"{len(took)} {kind}{bits}" + (f" ({lost} left to later rules)" if lost else ""))
            found += [f"rule {number + 1}, {_place_of(rule)}: {', '.join(parts)}"] if parts else []
        return tuple(found)


def taken_of(recipe: str | None) -> Taken | None:
    """What a recipe takes, nothing yet; None without one. RecipeInvalid where the file is none."""
    if recipe is None:
        return None
    from .recipe import load_recipe

    return Taken(load_recipe(recipe), recipe)


def _place_of(rule: Rule) -> str:
    said = [f"{key} {' '.join(map(str, values))}" for key, values in rule.where.given().items()]
    return "of " + ", ".join(said) if said else "anywhere"


@dataclass(eq=False)
class Decider:
    """The choices for one graph; ``taken`` is filled as tensors are asked about."""

    model: ir.Model
    taken: Taken
    states: list[State]

    @classmethod
    def of(cls, model: ir.Model, taken: Taken, states: list[State] | None = None) -> Decider:
        """For a graph, whose states may be known; one with pairs in it counts as the one without."""
        if states is not None:
            return cls(model, taken, states)
        with plain_pairs(model):
            return cls(model, taken, find_states(model))

    @functools.cached_property
    def places(self) -> Places:
        """Looked for where a rule tells tensors apart by them, and for weights that are looked up or picked."""
        with plain_pairs(self.model):
            return places_of(self.model, self.states)

    @functools.cached_property
    def groups(self) -> list[Group]:
        """The tensors that are tied to each state."""
        with plain_pairs(self.model):
            return encoding_groups(self.model, self.states)

    def _tells(self, kind: str) -> bool:
        """Whether any rule of that kind takes some tensors and not others."""
        rules = [rule for rule in self.taken.recipe.rules if kind in rule.kinds()]
        return any(rule.where.given() for rule in rules)

    def widths(self) -> dict[str, int]:
        """The bits of each state that the rules put on a grid, by name."""
        if self._tells("caches"):
            chosen = [(group.states, self.group(group)) for group in self.groups]
        else:
            chosen = [(self.states, self._choose(_Candidate("caches", "", Place(), frozenset())))]
        return {state.name: choice.bits for states, choice in chosen if choice is not None for state in states}

    def group(self, group: Group) -> Choice | None:
        """What a state and everything tied to it is put on."""
        if not self._tells("caches"):
            return self._choose(_Candidate("caches", group.name, Place(), frozenset()))
        return self._choose(_state_candidate(group, self.places))

    def activations(self, values: Iterable[ir.Value]) -> dict[ir.Value, Choice]:
        """What computed tensors are put on; those left in float are left out."""
        of_group = {id(member): group for group in self.groups for member in group.members}
        found: dict[ir.Value, Choice] = {}
        chosen: dict[int, Choice | None] = {}
        places = self.places.values if self._tells("activations") else {}
        for value in values:
            group = of_group.get(id(value))
            if group is not None:
                choice = chosen[id(group)] if id(group) in chosen else chosen.setdefault(id(group), self.group(group))
            else:
                node = value.producer()
                words = {value.name or ""} | ({node.name or ""} if node is not None else set[str]())
                place = places.get(value, Place())
                choice = self._choose(_Candidate("activations", value.name or "", place, frozenset(words)))
            if choice is not None:
                found[value] = choice
        return found

    def weights(self, known: Mapping[ir.Value, int]) -> dict[ir.Value, tuple[int, Choice]]:
        """What weights are put on, and the axis of their channels; ``known`` are those of plain products.

        Tables that are only looked up are taken by rules that name their role.
        """
        found: dict[ir.Value, tuple[int, Choice]] = {}
        every = {**{value: known.get(value, -1) for value in self.places.weights}, **known}
        for value, axis in every.items():
            place = self.places.weights.get(value, Place())
            words = {value.name or "", *(user.name or "" for user in _readers(value))}
            choice = self._choose(_Candidate("weights", value.name or "", place, frozenset(words)))
            if choice is not None:
                found[value] = (axis if axis >= 0 else channel_axis(value), choice)
        return found

    def _choose(self, candidate: _Candidate) -> Choice | None:
        said: dict[str, Any] = {}
        decided = -1
        for number, rule in enumerate(self.taken.recipe.rules):
            parts = rule.kinds()
            if candidate.kind in parts and self._takes(rule, candidate):
                self.taken.took.setdefault((number, candidate.kind), set()).add(candidate.name)
                said |= parts[candidate.kind]
                decided = number if "bits" in parts[candidate.kind] else decided
        if decided >= 0:
            self.taken.kept.setdefault((decided, candidate.kind), set()).add(candidate.name)
        bits = said.get("bits", FLOAT)
        return None if bits == FLOAT else _choice(candidate.kind, bits, said)

    def _takes(self, rule: Rule, candidate: _Candidate) -> bool:
        where, place = rule.where, candidate.place
        if place.parts == {Part.EMBEDDING} and candidate.kind == "weights" and "embedding" not in (where.roles or ()):
            return False
        layers = where.layers is None or _in_layers(where.layers, place.layer, self.places.layers)
        roles = where.roles is None or not {part.value for part in place.parts}.isdisjoint(where.roles)
        operators = where.operators is None or not place.operators.isdisjoint(where.operators)
        names = where.names is None or any(map(_matcher(where.names), candidate.words))
        return layers and roles and operators and names


def _choice(kind: str, bits: int, said: Mapping[str, Any]) -> Choice:
    symmetric = said.get("symmetry", "asymmetric" if kind == "activations" else "symmetric") == "symmetric"
    form = said.get("granularity", "channel" if kind == "weights" else "tensor")
    block = None if form == "tensor" else 0 if form == "channel" else int(form.removeprefix("block "))
    return Choice(bits, symmetric, block, said.get("method", ""), strict=True)


def _state_candidate(group: Group, places: Places) -> _Candidate:
    """A group of tied tensors, with the layer and kind of the states in it."""
    states = group.states
    parts = {Part.CACHE} | {_KINDS[state.kind] for state in states if state.kind in _KINDS}
    layer = next((state.layer for state in states if state.layer is not None), None)
    if layer is None:
        layer = next((p.layer for v in group.members if (p := places.values.get(v)) and p.layer is not None), None)
    operators = {state.update.op_type for state in states if state.update is not None}
    words = {*group.names(), *(state.name for state in states), *(_update_name(state) for state in states)}
    return _Candidate("caches", group.name, Place(layer, parts, operators), frozenset(words))


def _update_name(state: State) -> str:
    return (state.update.name or "") if state.update is not None else ""


def _readers(value: ir.Value) -> list[ir.Node]:
    """What reads a weight, picked or turned first."""
    found: list[ir.Node] = []
    work = [(value, 0)]
    while work:
        current, depth = work.pop()
        for node, _ in current.uses():
            found.append(node)
            if depth < 8 and is_one_to_one(node):
                work.append((node.outputs[0], depth + 1))
    return found


def channel_axis(value: ir.Value) -> int:
    """The axis of output channels of a weight that is looked up, or picked before it multiplies."""
    rank = len(value.const_value.shape) if value.const_value is not None else 2
    lookups = [node for node, index in value.uses() if node.op_type == "Gather" and index == 0]
    if rank == 2 and lookups:
        return 0  # a row a word
    for node, _ in value.uses():
        if node.op_type == "Transpose":
            axes = axes_after(node, tuple(value.shape) if value.shape is not None else (None,) * rank, None)  # pyright: ignore[reportArgumentType]
            return axes[-1] if axes is not None and axes[-1] is not None else rank - 1
    return rank - 1


def _in_layers(spans: Iterable[str], layer: int | None, known: list[int]) -> bool:
    if layer is None:
        return False
    last = known[-1] if known else -1
    for text in spans:
        first, _, end = text.partition("-")
        low, high = (last if side == "last" else int(side) for side in (first, end or first))
        if low <= layer <= high:
            return True
    return False


def _matcher(patterns: Iterable[str]) -> Callable[[str], object]:
    return re.compile("|".join(fnmatch.translate(text.replace("[", "[[]")) for text in patterns)).match
