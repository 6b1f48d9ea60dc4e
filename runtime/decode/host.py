"""Feeds one graph: what a step tells by role, caches by layout, the rest as a first run would have it.

Who calls whom, for whatever runs a decoder (generate, verify's scripts, layers, calibrate, compare):

- it makes a `Step`: tokens at positions, row by row, idle rows and padding at -1, what each row holds before (less than
  it did is a rewind);
- it keeps `Caches`: one `KVCache` a state, shared by the graphs of a program, and the length of each text. Nobody else
  counts tokens; where a text's next row goes follows from its length;
- `Host.bind` says once for a batch how each state is kept (`CacheBinding`) and where its keys lie (`Interface`);
- `feeds` makes arrays of step and caches, `take` carries on what a run of them gave; `run` does both, `execute` does it
  on the caches' own memory. `Rows` reads the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import OnnxPassesError, UsageError
from ...ir.interface.logits import logits_output
from ...ir.interface.roles import Role
from ...ir.states import Layout, Pairing, State
from ...ir.symbolic.symbols import dims_of
from ..session.in_place import InPlaceSession
from ..session.legalize import legalized
from ..session.session import Optimization
from ..session.subject import Subject, dim_of, static
from .caches import CacheBinding, Sizes, bind_caches
from .cases import Padding, make_case
from .inputs import build_inputs
from .kv_cache import Caches, as_array
from .step import Interface, Step

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]


class NotDecodable(OnnxPassesError):
    """A program that cannot be decoded with: no tokens in, no logits out, a state that cannot be kept."""


@dataclass(frozen=True)
class Rows:
    """What one run answers: logits ``[rows, n, vocabulary]`` or tokens ``[rows, n]``; ``first`` is n's first token."""

    values: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, step: Step) -> Rows:
        """An answer as rows of a batch: of all the step's tokens, or of each row's last ones."""
        if values.ndim == (1 if values.dtype.kind in "iu" else 2):
            values = values[:, None]
        given = values.shape[1]
        first = np.zeros(len(values), np.int64) if given == step.width else np.maximum(step.counts - given, 0)
        return cls(values, first)

    @property
    def are_tokens(self) -> bool:
        """Whether the graph chose the tokens itself."""
        return self.values.dtype.kind in "iu"

    def after(self, row: int, token: int) -> np.ndarray:
        """What follows the row's token number ``token`` of the run: logits ``[vocabulary]`` or one token."""
        return self.values[row, token - int(self.first[row])]


@dataclass(eq=False)
class Host:
    """One graph with what it takes to feed it; every run is given arrays and gives arrays.

    Attributes:
        ctx: The rows of caches that are written in place and leave their number open.
        guesses: Whether inputs that no step tells get what a first run has, and sizes that nothing tells a guess.
        buffers: Whether a fused cache of open length is a buffer of ``ctx`` rows, or grows from run to run.
        whole: Whether it takes whole chunks only, as a pass recorded; of others a run tells.
    """

    subject: Subject
    opened: InPlaceSession | None = None
    ctx: int = 0
    guesses: bool = True
    buffers: bool = False
    whole: bool = False
    _bound: dict[int, tuple[dict[str, CacheBinding], Interface]] = field(
        default_factory=dict[int, "tuple[dict[str, CacheBinding], Interface]"]
    )
    _built: dict[tuple[int, int], Arrays] = field(default_factory=dict[tuple[int, int], Arrays])

    @classmethod
    def of(cls, model: ir.Model, name: str, ctx: int = 0, bound: ir.Model | None = None) -> Host:
        """With a session of its own; raises what Session raises."""
        host = cls(Subject.of(bound or model, name))
        host.ctx = ctx or host.room
        host.open(model)
        return host

    def open(self, model: ir.Model | None = None, optimization: Optimization | None = None) -> None:
        """Opens a session of a runnable copy where INT32_MAX stands for "no index"; raises what Session raises."""
        runnable = legalized(self.subject.model if model is None else model).model
        self.opened = InPlaceSession(runnable, self.subject.name, optimization)

    @property
    def session(self) -> InPlaceSession:
        """What runs the graph; a host that only feeds has none."""
        assert self.opened is not None, "a host that runs has a session"
        return self.opened

    @property
    def name(self) -> str:
        """What the graph is called."""
        return self.subject.name

    @property
    def length(self) -> int | None:
        """How many tokens a run takes, None where any number will do."""
        return self.subject.fixed(1)

    @property
    def batch(self) -> int | None:
        """How many rows a run takes, None where any number will do."""
        return self.subject.fixed(0)

    @property
    def vocabulary(self) -> int | None:
        """How many token ids there are, where a table of the graph tells."""
        ids = self.subject.inputs(Role.TOKEN_IDS)
        return self.subject.tables.get(ids[0].name or "") if ids else None

    @property
    def fixed_past(self) -> bool:
        """Whether a cache that grows has a fixed length, whose empty rows must be hidden."""
        grown = [s for s in self.subject.states if s.gains_row_per_token and not s.is_written]
        return any(static(dim_of(state, state.axis or 0)) for state in grown)

    @property
    def room(self) -> int:
        """How many tokens the caches hold after a run."""
        for state in self.subject.states:
            rows = static(dim_of(state, state.axis)) if state.axis is not None and state.input is not None else None
            if rows is not None and state.is_written:
                return rows
            if rows is not None and state.gains_row_per_token:
                return rows + (self.length or 1)
        return (self.length or 1) * 8

    @property
    def pads(self) -> bool:
        """Whether a run may hold fewer tokens than it takes: something tells padding, and nothing carries it on."""
        by_row = self.subject.written_at is None or self.subject.pads_by_position
        told = self.subject.pads_by_position or (self.subject.masks and by_row)
        return told and self.rewinds and all(state.layout is not Layout.FUSED for state in self.subject.states)

    @property
    def rewinds(self) -> bool:
        """Whether rejected tokens can be taken back."""
        return all(not s.takes_padding and not s.is_ring for s in self.subject.states)

    @property
    def changing(self) -> list[State]:
        """The states that come back changed."""
        return [s for s in self.subject.states if s.pairing is Pairing.BOTH and s.traits.changes]

    @property
    def chooses_rows(self) -> bool:
        """Whether an input says which rows of the cache a run is about."""
        return bool(self.subject.inputs(Role.BATCH_INDEX))

    @cached_property
    def inputs(self) -> dict[str, ir.Value]:
        """What a run must be fed."""
        return {value.name or "": value for value in self.subject.model.graph.inputs if not value.is_initializer()}

    @cached_property
    def answer(self) -> str:
        """The output that holds the logits, or the tokens in their place."""
        value = logits_output(self.subject.model, self.subject.states)
        if value is None:
            raise NotDecodable("no output beside its states", where=self.subject.name)
        return value.name or ""

    def step(self, tokens: Array, start: int, count: int, rows: tuple[int, ...] | None = None) -> Step:
        """All rows alike: of ``tokens`` ``[batch, width]`` the first ``count`` count, from position ``start`` on.

        What is behind them is padding where the graph can tell it, else as real as wrong proposals are.
        """
        places = np.arange(tokens.shape[1])
        positions = np.where(places < (count if self.pads else len(places)), start + places, -1)
        past = np.full(len(tokens), start, np.int64)
        return Step.at(tokens, np.tile(positions, (len(tokens), 1)), past, rows)

    def bind(self, texts: int) -> tuple[dict[str, CacheBinding], Interface]:
        """How a batch of so many texts is fed: its caches and its interface."""
        if texts not in self._bound:
            sizes = Sizes(texts, self.ctx, self._named(texts) if self.guesses else {}, self.buffers)
            bindings = bind_caches(self.subject.model, sizes, self.subject.states)
            self._bound[texts] = bindings, Interface.of(self.subject, bindings, self.ctx)
        return self._bound[texts]

    def _named(self, batch: int) -> dict[str, int]:
        """What the symbols of states are worth in a first run."""
        built, found = self.first(batch, self.length or 1), dict[str, int]()
        for name, state in self.subject.by_input.items():
            dims = dims_of(state.input) if state.input is not None else None
            found |= {str(d): n for d, n in zip(dims or (), built[name].shape, strict=True) if not isinstance(d, int)}
        return found

    def first(self, batch: int, width: int) -> Arrays:
        """What a first run of that size is fed."""
        if (batch, width) not in self._built:
            self._built[batch, width] = build_inputs(self.subject, make_case(batch, width, Padding.FULL))
        return self._built[batch, width]

    def _told(self, caches: Caches, step: Step, others: Mapping[str, Array] | None) -> Arrays:
        """Every input that is no state; the caches are opened, and hold what the step begins with."""
        bindings, interface = self.bind(len(caches.lengths))
        first = self.first(len(step.ids), step.width) if self.guesses else {}
        caches.open(bindings, {**first, **(others or {})})
        caches.rewind(step.rows, step.past)
        fed: Arrays = {**first, **interface.feeds(step), **(others or {})}
        if missing := [name for name in self.inputs if name not in fed and name not in bindings]:
            found = self.subject.roles[missing[0]].value
            raise UsageError(f"nothing tells what to feed {missing[0]!r}", where=self.subject.name, found=found)
        return {name: fed[name] for name in self.inputs if name not in bindings}

    def feeds(self, caches: Caches, step: Step, others: Mapping[str, Array] | None = None) -> Arrays:
        """Every input of a run, ``others`` as they are. Raises UsageError for an input that nothing tells."""
        fed = self._told(caches, step, others)
        bindings = self.bind(len(caches.lengths))[0]
        return fed | {name: as_array(caches.states[name].past(binding)) for name, binding in bindings.items()}

    def take(self, caches: Caches, step: Step, outputs: Mapping[str, Array], keep: int | None = None) -> None:
        """Carries a run's states on: of each row's tokens all real ones, or the first ``keep``."""
        caches.done(self.bind(len(caches.lengths))[0].values(), outputs, step.width)
        counts = np.zeros_like(caches.lengths)
        counts[step.rows] = step.counts if keep is None else keep
        caches.keep(counts)

    def run(
        self, caches: Caches, step: Step, keep: int | None = None, others: Mapping[str, Array] | None = None
    ) -> Arrays:
        """Feeds, runs and carries on. Raises RunError where the graph rejects the inputs."""
        outputs = self.session.run(self.feeds(caches, step, others))
        self.take(caches, step, outputs, keep)
        return outputs

    def execute(self, caches: Caches, step: Step, others: Mapping[str, Array] | None = None) -> Rows:
        """One run on the caches' own memory, which says what stays with ``keep``; the answer is valid until the next.

        Raises RunError, every state as it was, where the graph rejects the inputs.
        """
        fed, bindings = self._told(caches, step, others), self.bind(len(caches.lengths))[0]
        held = {name: caches.states[name].past(binding) for name, binding in bindings.items()}
        written = {b.written: caches.states[name].target() for name, b in bindings.items() if b.written is not None}
        outputs = self.session.run_in_place(fed, held, written, (self.answer,))
        caches.done(bindings.values(), outputs, step.width)
        return self.rows(outputs, step)

    def rows(self, outputs: Mapping[str, Array], step: Step) -> Rows:
        """What a run answers, row by row."""
        return Rows.of(outputs[self.answer], step)

    def close(self) -> None:
        """Lets the session go."""
        if self.opened is not None:
            self.opened.close()


def new_rows(state: State, output: Array, step: Step) -> Array:
    """Of what a state's output holds the rows that the run's tokens added; all of it where no axis tells them apart."""
    if state.axis is None:
        return output
    alone = state.layout is Layout.DELTA or state.input is None  # without a past nothing else is there
    first = step.held if state.is_written else output.shape[state.axis] - step.width
    return np.take(output, np.arange(step.count) + (0 if alone else first), axis=state.axis)
