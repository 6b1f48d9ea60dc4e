"""Feeds one text to a graph chunk by chunk, the real past carried from run to run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import PassRefused, UnknownNameError
from ...ir.interface.roles import Role, find_roles, find_tables
from ...ir.program.program import Program
from ...ir.quantization.qdq import plain_pairs
from ...ir.states import TRAITS, Pairing, State, find_states
from ...ir.symbolic.symbols import dims_of
from ..decode.host import Arrays, Host
from ..decode.kv_cache import Caches
from ..decode.step import TOLD, Chunk, Step
from ..session.legalize import legalized
from ..session.subject import Subject

WHOLE = 1 << 31  # a graph that takes no past is given a text in one run, however long


def graph_of(program: Program, name: str | None = None, longest: float = math.inf) -> str:
    """The graph to feed: the one of that ``name``, else of several the one that takes most tokens a run (a prefill).

    ``longest`` leaves out graphs that take more tokens than any text has, where others take fewer. Raises
    UnknownNameError for a graph there is not, PassRefused where two take equally many.
    """
    if name is not None:
        if name not in program.names:
            raise UnknownNameError("graph", name, program.names)
        return name
    if len(program.names) == 1:
        return program.names[0]
    lengths = {graph: _run_length(program.graph(graph)) for graph in program.names}
    fitting = [length for length in lengths.values() if length <= longest or length == math.inf]
    most = max(fitting or lengths.values())
    found = [graph for graph, length in lengths.items() if length == most]
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

    host: Host
    chunk: int
    capacity: int
    vocabulary: int | None = None
    fixed: bool = False
    bounded: bool = False

    @property
    def model(self) -> ir.Model:
        """The graph as it runs."""
        return self.host.subject.model

    @property
    def states(self) -> list[State]:
        """What it carries."""
        return self.host.subject.states

    @classmethod
    def of(cls, model: ir.Model, chunk: int, capacity: int, *, hidden_past: bool = False) -> Feeder:
        """Looks the graph over; PassRefused says what in it cannot be fed.

        ``hidden_past``: a past of fixed length starts empty behind its mask. Not where values are watched: what the
        mask hides would be seen.
        """
        model = legalized(model).model
        with plain_pairs(model):
            subject = Subject.of(model, "calibrate")
            feeder = cls(Host(subject, guesses=False), chunk, capacity)
            told = bool(subject.inputs(Role.ATTENTION_MASK) and subject.inputs(Role.POSITIONS))
            for state in subject.states:
                _check_state(state, hidden=hidden_past and told)
            feeder._check_inputs()
            if feeder.host.fixed_past:
                feeder.capacity, feeder.bounded = feeder.host.room, True
            feeder.host.ctx = feeder.capacity
            feeder.host.bind(1)
        feeder.vocabulary = find_tables(model).get(subject.inputs(Role.TOKEN_IDS)[0].name or "")
        if not any(state.input is not None for state in subject.states) and not feeder.fixed:
            feeder.chunk = WHOLE
        return feeder

    def _check_inputs(self) -> None:
        subject = self.host.subject
        tokens = [value for value in subject.inputs(Role.TOKEN_IDS) if not value.is_initializer()]
        if len(tokens) != 1:
            raise PassRefused("calibration needs one input of token ids", where="calibrate", found=len(tokens))
        for value in subject.model.graph.inputs:
            role = subject.roles[value.name or ""]
            told = role in TOLD and role not in _ASIDE
            if not (told or role is Role.STATE or subject.is_start(value) or value.is_initializer()):
                what = f"nothing says what to feed input {value.name!r}"
                raise PassRefused(what, where="calibrate", found=role.value)
        dims = dims_of(tokens[0]) or (None, None)
        if isinstance(dims[0], int) and dims[0] != 1:
            raise PassRefused(
                "calibration runs one text at a time", where="calibrate", found=f"a fixed batch of {dims[0]}", wanted=1
            )
        if isinstance(dims[-1], int):
            self.chunk, self.fixed = dims[-1], True
        sizes = [state.length for state in self.states if state.is_written]
        self.capacity = min((size for size in sizes if isinstance(size, int)), default=self.capacity)

    def usable(self, length: int) -> int:
        """How many tokens of a text of that length are fed: whole chunks where the graph fixes them, what fits."""
        written = any(state.is_written for state in self.states)
        fitting = min(length, self.capacity) if written or self.bounded else length
        return fitting - fitting % self.chunk if self.fixed else fitting

    def feed(self, tokens: np.ndarray, run: Callable[[Arrays], Mapping[str, np.ndarray]]) -> Iterator[None]:
        """Runs a text; ``run`` takes the inputs and gives at least the states' outputs. Yields after every chunk."""
        caches = Caches(1)
        for start in range(0, self.usable(len(tokens)), self.chunk):
            step = Step.of([Chunk(tokens[start : min(start + self.chunk, self.usable(len(tokens)))], start)])
            self.host.take(caches, step, run(self.host.feeds(caches, step)))
            yield


def _check_state(state: State, *, hidden: bool = False) -> None:
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
    if not state.is_written and isinstance(past, int) and past > 0 and not hidden:
        raise PassRefused(
            f"the past of {state.name!r} has a fixed length, so that it cannot start empty",
            where="calibrate",
            found=f"{past} rows",
            hint="Calibrate the graph with dynamic lengths and carry its encodings to this one (transfer-encodings).",
        )


_ASIDE = (Role.EMBEDDINGS, Role.CONTEXT_LENGTHS)
"""Told by a step, and not by a text alone."""
