"""Values that hold the numbers of one carried state must share one encoding; this finds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from ..core.encoding import Encoding, EncodingsInvalid
from ..core.operators import Addressing, names
from ..shapes.float_values import element_types
from ..shapes.infer import Facts, propagate
from ..states import Layout, State, find_states
from .layout_ops import Axes, Shape, axes_after, chosen_from, inverse, is_move, is_one_to_one, moved_input

MAX_MEMBERS = 4096  # of one group; a crafted graph must not make the walk long
SAME_AXES = names(lambda row: row.writes in (Addressing.ELEMENTS, Addressing.WINDOW)) | {"Concat"}


@dataclass(eq=False)
class Group:
    """The values of one or several states that hold the same numbers, and where the leader's axes are in each.

    Attributes:
        states: The states of the group, in the order they were found.
        leader: The value whose range speaks for all: the present, where the graph has one.
        members: Every value of the group, the leader first.
        axes: For each member, by name, the leader's axis that each of its axes is; None where that is not known.
    """

    states: list[State]
    leader: ir.Value
    members: list[ir.Value] = field(default_factory=list[ir.Value])
    axes: dict[str, Axes] = field(default_factory=dict[str, Axes])

    @property
    def name(self) -> str:
        """The first state's name."""
        return self.states[0].name

    def names(self) -> list[str]:
        """The members' names."""
        return [value.name or "" for value in self.members]

    def adapt(self, encoding: Encoding, member: str) -> Encoding:
        """The leader's encoding as it stands on a member: the axis remapped; EncodingsInvalid where it is lost."""
        if encoding.axis is None and encoding.per_tensor:
            return encoding
        from dataclasses import replace

        axes = self.axes.get(member)
        at = axes.index(encoding.axis) if axes is not None and encoding.axis in axes else None
        if at is None:
            raise EncodingsInvalid(
                f"tensor {member!r} cannot take the encoding of {self.leader.name!r}",
                found=f"one grid a channel of axis {encoding.axis}, which does not survive on the way",
                hint="Use one encoding for the whole tensor (per-tensor) for this state.",
            )
        return replace(encoding, axis=at)


def encoding_groups(model: ir.Model, states: Iterable[State] | None = None, facts: Facts | None = None) -> list[Group]:
    """The groups of a graph, in the order of its states: past, present or delta, every operand of what combines them.

    Closed through operators that only move numbers, and back through a Where that chooses between rows. Backwards a
    Slice or Split is not followed: what it cuts from holds other numbers too. Fused operators are tied at their past
    and present alone. States that are only read (cross-attention) and recurrences have no groups here.
    """
    found = [state for state in (states if states is not None else find_states(model)) if state.keeps_rows]
    web = _Web(model, facts or propagate(model))
    union = _Union()
    for state in found:
        seeds = [id(value) for value in web.seed(state)]
        for other in (*seeds, *web.closure(seeds)):
            union.join(seeds[0], other)
    by_root: dict[int, list[State]] = {}
    for state in found:
        by_root.setdefault(union[id(_leader(state))], []).append(state)
    return [web.group(together, union) for together in by_root.values()]


def _leader(state: State) -> ir.Value:
    value = state.output if state.output is not None else state.carried or state.input
    assert value is not None
    return value


class _Union:
    """Disjoint sets of ids."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def __getitem__(self, key: int) -> int:
        """The one id that stands for the set of ``key``."""
        while (parent := self._parent.get(key, key)) != key:
            self._parent[key] = self._parent.get(parent, parent)
            key = parent
        return key

    def join(self, first: int, second: int) -> None:
        """Makes one set of two."""
        self._parent[self[second]] = self[first]


class _Web:
    """The values of one graph, linked where they hold the same numbers."""

    def __init__(self, model: ir.Model, facts: Facts) -> None:
        self.facts = facts
        self.types = element_types(model)
        self.values: dict[int, ir.Value] = {}
        self.links: dict[int, list[tuple[ir.Value, Axes]]] = {}

    def seed(self, state: State) -> list[ir.Value]:
        """The values that the state itself names, linked: the leader first."""
        leader = _leader(state)
        values = [leader, *(v for v in (state.input, state.carried) if v is not None and v is not leader)]
        node = state.update
        if node is not None and state.inside is not Layout.FUSED and state.carried is not None:
            operands = [value for value in _operands(state, node) if value is not None]
            for operand in operands:
                axes = self._same(operand) if _keeps_axes(state, node, operand) else None
                self._link(operand, state.carried, axes)
            values += operands
        for reader in state.readers:
            if state.carried is not None:
                self._link(state.carried, reader.outputs[0], None)
                values.append(reader.outputs[0])
        if state.input is not None and state.output is not None and state.layout is not Layout.DELTA:
            self._link(state.input, state.output, self._same(state.input))
        for value in values:
            self._remember(value)
        return values

    def closure(self, seeds: Iterable[int]) -> Iterator[int]:
        """Every value reached from the seeds through moving operators, by id."""
        work = [self.values[seed] for seed in seeds]
        seen = {id(value) for value in work}
        while work and len(seen) < MAX_MEMBERS:
            value = work.pop(0)
            for other in self._neighbours(value):
                if id(other) not in seen and self._is_float(other):
                    seen.add(id(other))
                    self._remember(other)
                    work.append(other)
                    yield id(other)

    def _neighbours(self, value: ir.Value) -> Iterator[ir.Value]:
        for node, index in value.uses():
            if is_move(node) and index == moved_input(node):
                for output in node.outputs:
                    self._link(value, output, axes_after(node, self._shape(value), self._shape(output)))
                    yield output
        node = value.producer()
        if node is not None and is_one_to_one(node) and node.inputs[0] is not None:
            source = node.inputs[0]
            self._link(source, value, axes_after(node, self._shape(source), self._shape(value)))
            yield source
        for side in chosen_from(node) if node is not None else ():
            same_rank = len(self._shape(side) or ()) == len(self._shape(value) or ())
            self._link(side, value, self._same(side) if same_rank else None)
            yield side

    def group(self, states: list[State], union: _Union) -> Group:
        """The group of these states, the axes of each member numbered as the leader's are."""
        leader = _leader(states[0])
        root = union[id(leader)]
        group = Group(states, leader)
        for key in (id(leader), *(key for key in self.values if key != id(leader) and union[key] == root)):
            group.members.append(self.values[key])
        rank = len(self._shape(leader) or ())
        found: dict[int, Axes] = {id(leader): tuple(range(rank))}
        work = [leader]
        while work:
            value = work.pop(0)
            for other, axes in self.links.get(id(value), ()):
                if id(other) not in found and union[id(other)] == root:
                    found[id(other)] = _compose(found[id(value)], axes)
                    work.append(other)
        group.axes = {value.name or "": found.get(id(value)) for value in group.members}
        return group

    def _link(self, source: ir.Value, result: ir.Value, axes: Axes) -> None:
        if any(other is result for other, _ in self.links.get(id(source), ())):
            return
        self.links.setdefault(id(source), []).append((result, axes))
        back = inverse(axes, len(self._shape(source) or ()))
        self.links.setdefault(id(result), []).append((source, back))

    def _remember(self, value: ir.Value) -> None:
        self.values[id(value)] = value

    def _shape(self, value: ir.Value) -> Shape:
        return self.facts.shape(value)

    def _same(self, value: ir.Value) -> Axes:
        shape = self._shape(value)
        return tuple(range(len(shape))) if shape is not None else None

    def _is_float(self, value: ir.Value) -> bool:
        dtype = self.types.get(value, value.dtype)
        return dtype is None or dtype.is_floating_point()


def _operands(state: State, node: ir.Node) -> list[ir.Value | None]:
    """What is combined: every operand of a Concat, data and updates where rows are written."""
    if node.op_type == "Concat":
        return list(node.inputs)
    return [node.inputs[0] if state.new is not node.inputs[0] else None, state.new]


def _keeps_axes(state: State, node: ir.Node, operand: ir.Value) -> bool:
    return node.op_type in SAME_AXES or operand is not state.new


def _compose(first: Axes, then: Axes) -> Axes:
    """The leader's axes on the far value: ``then`` gives for each of its axes the near value's."""
    if first is None or then is None:
        return None
    return tuple(first[axis] if axis is not None and axis < len(first) else None for axis in then)
