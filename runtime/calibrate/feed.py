"""Feeds one text to a graph chunk by chunk, the real past carried from run to run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import PassRefused, UnknownNameError
from ...ir.interface.roles import Role, find_roles, find_tables
from ...ir.interface.usage import origins
from ...ir.program.program import Program
from ...ir.quantization.qdq import plain_pairs
from ...ir.shapes.infer import propagate
from ...ir.states import TRAITS, Layout, Pairing, State, find_states
from ...ir.states.ports import KEY_VALUE_INPUTS
from ...ir.symbolic.dims import Dim
from ...ir.symbolic.symbols import dims_of
from ..session.legalize import legalized

Arrays = dict[str, np.ndarray]
WHOLE = 1 << 31  # a graph that takes no past is given a text in one run, however long


def graph_of(program: Program, name: str | None = None) -> str:
    """The graph to feed: the one of that ``name``, else of several the one that takes most tokens a run (a prefill).

    Raises UnknownNameError for a graph there is not, PassRefused where two take equally many.
    """
    if name is not None:
        if name not in program.names:
            raise UnknownNameError("graph", name, program.names)
        return name
    if len(program.names) == 1:
        return program.names[0]
    lengths = {graph: _run_length(program.graph(graph)) for graph in program.names}
    longest = max(lengths.values())
    found = [graph for graph, length in lengths.items() if length == longest]
    if len(found) > 1:
        raise PassRefused("several graphs take equally many tokens", found=", ".join(found), hint="Say --graph NAME.")
    return found[0]


def _run_length(model: ir.Model) -> float:
    """How many tokens a run takes; without end where the graph leaves it open."""
    with plain_pairs(model):
        roles = find_roles(model, find_states(model))
    dims = [dims_of(value) or (None,) for value in model.graph.inputs if roles.get(value.name or "") is Role.TOKEN_IDS]
    return max((dim[-1] if isinstance(dim[-1], int) else math.inf for dim in dims), default=0)


@dataclass(eq=False)
class Feeder:
    """What a graph takes, and how its states go on; one text at a time, batch 1, no padding.

    Attributes:
        chunk: How many tokens a run takes; fewer in a text's last run, unless the graph fixes the length.
        capacity: The rows of caches that are written in place.
    """

    model: ir.Model
    chunk: int
    capacity: int
    states: list[State] = field(default_factory=list[State])
    roles: dict[str, Role] = field(default_factory=dict[str, Role])
    vocabulary: int | None = None
    fixed: bool = False
    starts: set[str] = field(default_factory=set[str])

    @classmethod
    def of(cls, model: ir.Model, chunk: int, capacity: int) -> Feeder:
        """Looks the graph over; PassRefused says what in it cannot be fed."""
        model = legalized(model).model
        with plain_pairs(model):
            states = find_states(model)
            roles = find_roles(model, states)
        feeder = cls(model, chunk, capacity, states, roles)
        for state in states:
            _check_state(state)
        feeder._check_inputs()
        if not any(state.input is not None for state in states) and not feeder.fixed:
            feeder.chunk = WHOLE
        return feeder

    def _check_inputs(self) -> None:
        tokens = [value for value in self._inputs() if self.roles[value.name or ""] is Role.TOKEN_IDS]
        if len(tokens) != 1:
            raise PassRefused("calibration needs one input of token ids", where="calibrate", found=len(tokens))
        written = origins(state.positions for state in self.states)
        for value in self._inputs():
            self.starts |= {value.name or ""} if value in written and self._is_start(value) else set()
            if value.name in self.starts:
                continue
            if self.roles[value.name or ""] not in _MAKERS and self.roles[value.name or ""] is not Role.STATE:
                role = self.roles[value.name or ""].value
                raise PassRefused(f"nothing says what to feed input {value.name!r}", where="calibrate", found=role)
        dims = dims_of(tokens[0]) or (None, None)
        if isinstance(dims[0], int) and dims[0] != 1:
            raise PassRefused(
                "calibration runs one text at a time", where="calibrate", found=f"a fixed batch of {dims[0]}", wanted=1
            )
        if isinstance(dims[-1], int):
            self.chunk, self.fixed = dims[-1], True
        self.vocabulary = find_tables(self.model).get(tokens[0].name or "")
        sizes = [state.length for state in self.states if state.is_written]
        self.capacity = min((size for size in sizes if isinstance(size, int)), default=self.capacity)

    def _is_start(self, value: ir.Value) -> bool:
        """True for an input that tells where writing starts, one number a row, and nothing else."""
        rank = len(value.shape) if value.shape is not None else 0
        return rank == 1 and self.roles[value.name or ""] is Role.OTHER

    def _inputs(self) -> list[ir.Value]:
        return [value for value in self.model.graph.inputs if not value.is_initializer()]

    def usable(self, length: int) -> int:
        """How many tokens of a text of that length are fed: whole chunks where the graph fixes them, what fits."""
        written = any(state.is_written for state in self.states)
        fitting = min(length, self.capacity) if written else length
        return fitting - fitting % self.chunk if self.fixed else fitting

    def feed(self, tokens: np.ndarray, run: Callable[[Arrays], Mapping[str, np.ndarray]]) -> Iterator[None]:
        """Runs a text; ``run`` takes the inputs and gives at least the states' outputs. Yields after every chunk."""
        caches = self._empty()
        for start in range(0, self.usable(len(tokens)), self.chunk):
            part = tokens[start : min(start + self.chunk, self.usable(len(tokens)))]
            results = run(self._arrays(part, start, caches))
            self._carry(caches, results, start)
            yield

    def _arrays(self, part: np.ndarray, start: int, caches: Arrays) -> Arrays:
        arrays: Arrays = {}
        for value in self._inputs():
            name = value.name or ""
            if name in self.starts:
                arrays[name] = np.full(1, start, _numpy(value))
                continue
            made = caches[name] if name in caches else _MAKERS[self.roles[name]](self, value, part, start)
            arrays[name] = made if name in caches else np.ascontiguousarray(made).astype(_numpy(value))
        return arrays

    def _carry(self, caches: Arrays, results: Mapping[str, np.ndarray], start: int) -> None:
        for state in self.states:
            if state.input is None:
                continue
            assert state.output is not None
            new = results[state.output.name or ""]
            if state.layout is Layout.DELTA:
                new = self._with_rows(state, caches[state.name], new, start)
            caches[state.name] = new

    def _with_rows(self, state: State, old: np.ndarray, new: np.ndarray, start: int) -> np.ndarray:
        """A cache of which only the new rows leave the graph, with those: behind the others, or at their positions."""
        axis = state.axis or 0
        if not state.in_place:
            return np.concatenate([old, new], axis=axis)
        place = (slice(None),) * axis + (slice(start, start + new.shape[axis]),)
        filled = old.copy()
        filled[place] = new
        return filled

    def _empty(self) -> Arrays:
        heads = _head_sizes(self.model, self.states) if any(s.layout is Layout.FUSED for s in self.states) else {}
        paired = [state for state in self.states if state.input is not None]
        return {state.name: self._first(state, heads.get(state.name)) for state in paired}

    def _first(self, state: State, head: int | None) -> np.ndarray:
        assert state.input is not None
        dims = list(dims_of(state.input) or ())
        sizes = [dim if isinstance(dim, int) else 1 for dim in dims]
        if head is not None and dims and not isinstance(dims[-1], int):
            sizes[-1] = head
        if state.axis is not None:
            sizes[state.axis] = self.capacity if state.is_written else 0
        return np.zeros(sizes, _numpy(state.input))

    def width(self, start: int, count: int) -> int:
        """How many keys a mask speaks of."""
        written = any(state.is_written for state in self.states)
        return self.capacity if written else start + count


def _check_state(state: State) -> None:
    fed = [layout.value for layout, traits in TRAITS.items() if traits.keeps_every_row]
    if not state.traits.keeps_every_row or state.pairing is Pairing.INPUT_ONLY or state.recurrent:
        found = f"layout {state.layout.value}, {state.pairing.value}"
        raise PassRefused(
            f"state {state.name!r} cannot be carried from chunk to chunk",
            where="calibrate",
            found="a recurrence" if state.recurrent else found,
            wanted=f"one of {', '.join(fed)}, as input and output",
        )
    if state.is_ring:
        raise PassRefused(
            f"the cache of {state.name!r} is a ring inside {state.update.op_type if state.update is not None else ''}",
            where="calibrate",
            wanted="a cache that grows, or one that is written at positions",
        )
    past = state.length
    if not state.is_written and isinstance(past, int) and past > 0:
        raise PassRefused(
            f"the past of {state.name!r} has a fixed length, so that it cannot start empty",
            where="calibrate",
            found=f"{past} rows",
            hint="Calibrate the graph with dynamic lengths and carry its encodings to this one (transfer-encodings).",
        )


def _numpy(value: ir.Value) -> Any:
    return value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)


def _head_sizes(model: ir.Model, states: list[State]) -> dict[str, int]:
    """The width of a head where the state's type leaves it open: what enters the operator, over its heads."""
    facts = propagate(model)
    found: dict[str, int] = {}
    for state in states:
        node = state.update
        ports = KEY_VALUE_INPUTS.get((node.domain, node.op_type)) if node is not None else None
        if node is None or ports is None or state.input is None:
            continue
        key = node.inputs[ports[0]]
        heads: Dim | None = (dims_of(state.input) or (None, None))[1]
        queries = node.attributes.get("num_heads")
        if key is None and isinstance(heads, int) and queries is not None:  # queries, keys and values in one
            key, heads = node.inputs[0], queries.as_int() + 2 * heads
        shape = (facts.shape(key) or ()) if key is not None else ()
        width = shape[-1] if shape else None
        if isinstance(width, int) and isinstance(heads, int) and heads:
            found[state.name] = width // heads if len(shape) == 3 else width
    return found


Maker = Callable[[Feeder, ir.Value, np.ndarray, int], np.ndarray]


def _tokens(feeder: Feeder, value: ir.Value, part: np.ndarray, start: int) -> np.ndarray:
    return part[None, :]


def _positions(feeder: Feeder, value: ir.Value, part: np.ndarray, start: int) -> np.ndarray:
    rank = len(value.shape) if value.shape is not None else 2
    row = np.arange(start, start + len(part))
    if rank <= 1:
        return row
    leading = [dim if isinstance(dim, int) else 1 for dim in list(value.shape or ())[:-1]]
    return np.broadcast_to(row, (*leading, len(part)))


def _mask(feeder: Feeder, value: ir.Value, part: np.ndarray, start: int) -> np.ndarray:
    rank = len(value.shape) if value.shape is not None else 2
    count, width = len(part), feeder.width(start, len(part))
    if rank <= 2:
        kept = np.zeros((1, width), np.int64)
        kept[:, : start + count] = 1
        return kept
    allowed = np.arange(width)[None, :] <= start + np.arange(count)[:, None]
    allowed = allowed.reshape(*[1] * (rank - 2), count, width)
    if value.dtype is not None and value.dtype.is_floating_point():
        return np.where(allowed, 0.0, np.finfo(_numpy(value)).min)
    return allowed


def _batch_index(feeder: Feeder, value: ir.Value, part: np.ndarray, start: int) -> np.ndarray:
    return np.zeros((1, 1))


def _keep(feeder: Feeder, value: ir.Value, part: np.ndarray, start: int) -> np.ndarray:
    dims = dims_of(value) or ()
    by_shape = [dim if isinstance(dim, int) else len(part) for dim in dims]
    return np.full(by_shape, len(part))


_MAKERS: dict[Role, Maker] = {
    Role.TOKEN_IDS: _tokens,
    Role.POSITIONS: _positions,
    Role.ATTENTION_MASK: _mask,
    Role.BATCH_INDEX: _batch_index,
    Role.LOGITS_TO_KEEP: _keep,
}
