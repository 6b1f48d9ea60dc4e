"""Feeds one text to a graph chunk by chunk, the real past carried from run to run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import PassRefused, UnknownNameError
from ...ir.interface.roles import Role
from ...ir.program.program import Program
from ...ir.quantization.qdq import plain_pairs
from ...ir.states import TRAITS, Pairing, State
from ..decode.host import Arrays, Host
from ..decode.kv_cache import Caches
from ..decode.step import TOLD, Chunk, Step
from ..session.legalize import legalized
from ..session.subject import Subject

WHOLE = 1 << 31  # a graph that takes no past is given a text in one run, however long
OWNER = "calibrate"


def graph_of(program: Program, name: str | None = None, longest: float = math.inf) -> str:
    """The graph to feed: the one of that ``name``, else of several the one that takes most tokens a run (a prefill).

    ``longest`` leaves out graphs that take more tokens than any text has, where others take fewer. Raises
    UnknownNameError for a graph there is not, PassRefused where two take equally many.
    """
    if name is not None and name not in program.names:
        raise UnknownNameError("graph", name, program.names)
    if name is not None or len(program.names) == 1:
        return name or program.names[0]
    lengths = {graph: _run_length(program.graph(graph)) for graph in program.names}
    fitting = [length for length in lengths.values() if length <= longest or length == math.inf]
    most = max(fitting or lengths.values())
    found = [graph for graph, length in lengths.items() if length == most]
    if len(found) > 1:
        raise PassRefused("several graphs take equally many tokens", found=", ".join(found), hint="Say --graph NAME.")
    return found[0]


def _run_length(model: ir.Model) -> float:
    """How many tokens a run takes; without end where the graph leaves it open, 0 where it takes none."""
    with plain_pairs(model):
        subject = Subject.of(model, OWNER)
    return (subject.fixed(1) or math.inf) if subject.inputs(Role.TOKEN_IDS) else 0


@dataclass(eq=False)
class Feeder:
    """A graph that is fed one text at a time, batch 1, no padding; its host's caches have room for the longest.

    Attributes:
        chunk: How many tokens a run takes; fewer in a text's last run, unless the graph fixes the length.
    """

    host: Host
    chunk: int

    @classmethod
    def of(cls, model: ir.Model, chunk: int, capacity: int, *, hidden_past: bool = False) -> Feeder:
        """Looks the graph over; PassRefused says what in it cannot be fed. ``capacity`` tokens has the longest text.

        ``hidden_past``: a past of fixed length starts empty behind its mask. Not where values are watched: what the
        mask hides would be seen.
        """
        model = legalized(model).model
        with plain_pairs(model):
            host = Host(Subject.of(model, OWNER), guesses=False)
            told = bool(host.subject.inputs(Role.ATTENTION_MASK) and host.subject.inputs(Role.POSITIONS))
            for state in host.subject.states:
                _check_state(state, hidden=hidden_past and told)
            _check_inputs(host)
            sizes = [size for s in host.subject.states if s.is_written and isinstance(size := s.length, int)]
            host.ctx = host.room if host.fixed_past else min(sizes, default=capacity)
            host.bind(1)
        carries = any(state.input is not None for state in host.subject.states)
        return cls(host, host.length or (chunk if carries else WHOLE))

    @property
    def model(self) -> ir.Model:
        """The graph as it runs."""
        return self.host.subject.model

    @property
    def states(self) -> list[State]:
        """What it carries."""
        return self.host.subject.states

    @property
    def fixed(self) -> bool:
        """Whether the graph fixes how many tokens a run takes."""
        return self.host.length is not None

    def usable(self, length: int) -> int:
        """How many tokens of a text of that length are fed: whole chunks where the graph fixes them, what fits."""
        ends = self.host.fixed_past or any(state.is_written for state in self.states)
        fitting = min(length, self.host.ctx) if ends else length
        return fitting - fitting % self.chunk if self.fixed else fitting

    def feed(self, tokens: np.ndarray) -> Iterator[tuple[Step, Arrays]]:
        """Runs a text in the session that the host has opened; gives every chunk and what the graph gave for it."""
        caches, usable = Caches(1), self.usable(len(tokens))
        for start in range(0, usable, self.chunk):
            step = Step.of([Chunk(tokens[start : min(start + self.chunk, usable)], start)])
            yield step, self.host.run(caches, step)


def _check_inputs(host: Host) -> None:
    """PassRefused names what a text alone does not tell, or that the graph does not take one text."""
    subject = host.subject
    tokens = [value for value in subject.inputs(Role.TOKEN_IDS) if not value.is_initializer()]
    if len(tokens) != 1:
        raise PassRefused("calibration needs one input of token ids", where=OWNER, found=len(tokens))
    for name, value in host.inputs.items():
        role = subject.roles[name]
        if not ((role in TOLD and role not in _ASIDE) or role is Role.STATE or subject.is_start(value)):
            raise PassRefused(f"nothing says what to feed input {name!r}", where=OWNER, found=role.value)
    if host.batch not in (None, 1):
        found = f"a fixed batch of {host.batch}"
        raise PassRefused("calibration runs one text at a time", where=OWNER, found=found, wanted=1)


def _check_state(state: State, *, hidden: bool) -> None:
    """PassRefused says why a state cannot be carried from chunk to chunk, from an empty one on."""
    if not state.traits.keeps_every_row or state.pairing is Pairing.INPUT_ONLY or state.recurrent:
        fed = ", ".join(layout.value for layout, traits in TRAITS.items() if traits.keeps_every_row)
        raise PassRefused(
            f"state {state.name!r} cannot be carried from chunk to chunk",
            where=OWNER,
            found="a recurrence" if state.recurrent else f"layout {state.layout.value}, {state.pairing.value}",
            wanted=f"one of {fed}, as input and output",
        )
    if state.is_ring:
        raise PassRefused(
            f"the cache of {state.name!r} is a ring inside {state.update.op_type if state.update is not None else ''}",
            where=OWNER,
            wanted="a cache that grows, or one that is written at positions",
        )
    past = state.length
    if not state.is_written and isinstance(past, int) and past > 0 and not hidden:
        raise PassRefused(
            f"the past of {state.name!r} has a fixed length, so that it cannot start empty",
            where=OWNER,
            found=f"{past} rows",
            hint="Calibrate the graph with dynamic lengths and carry its encodings to this one (transfer-encodings).",
        )


_ASIDE = (Role.EMBEDDINGS, Role.CONTEXT_LENGTHS)
"""Told by a step, and not by a text alone."""
