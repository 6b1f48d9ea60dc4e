"""Feeds one graph from arrays: what a step tells by role, caches by layout, the rest as a first run would have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import UsageError
from ...ir.interface.logits import logits_output
from ...ir.interface.roles import Role
from ...ir.states import Layout
from ...ir.symbolic.symbols import dims_of
from ..session.legalize import legalized
from ..session.session import Session
from ..session.subject import Subject, dim_of, static
from .caches import CacheBinding, CachePolicy, Sizes, bind_caches
from .cases import Padding, make_case
from .inputs import build_inputs
from .kv_cache import KVCache, as_array, open_cache
from .step import Interface, Step

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]


@dataclass
class Caches:
    """States by input name, which graphs of one program can share, and how many tokens the longest row holds."""

    states: dict[str, KVCache] = field(default_factory=dict[str, KVCache])
    held: int = 0

    def copy(self) -> Caches:
        """The same contents, to go on from apart."""
        return Caches({name: cache.copy() for name, cache in self.states.items()}, self.held)


@dataclass(eq=False)
class Host:
    """One graph with what it takes to feed it; every run is given arrays and gives arrays.

    Attributes:
        ctx: The rows of caches that are written in place and leave their number open.
        whole: Whether it takes whole chunks only, as a pass recorded; of others a run tells.
        guesses: Whether inputs that no step tells get what a first run has, and sizes that nothing tells a guess.
    """

    subject: Subject
    opened: Session | None = None
    ctx: int = 0
    guesses: bool = True
    whole: bool = False
    _bound: dict[int, tuple[dict[str, CacheBinding], Interface]] = field(
        default_factory=dict[int, "tuple[dict[str, CacheBinding], Interface]"]
    )
    _built: dict[tuple[int, int], Arrays] = field(default_factory=dict[tuple[int, int], Arrays])

    @classmethod
    def of(cls, model: ir.Model, name: str, ctx: int = 0, bound: ir.Model | None = None) -> Host:
        """With a session of a runnable copy where INT32_MAX stands for "no index"; raises what Session raises."""
        host = cls(Subject.of(bound or model, name), Session(legalized(model).model, name), ctx)
        host.ctx = host.ctx or host.room
        return host

    @property
    def session(self) -> Session:
        """What runs the graph; a host that only feeds has none."""
        assert self.opened is not None, "a host that runs has a session"
        return self.opened

    @property
    def length(self) -> int | None:
        """How many tokens a run takes, None where any number will do."""
        return self.subject.fixed(1)

    @property
    def batch(self) -> int | None:
        """How many rows a run takes, None where any number will do."""
        return self.subject.fixed(0)

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
    def chooses_rows(self) -> bool:
        """Whether an input says which rows of the cache a run is about."""
        return bool(self.subject.inputs(Role.BATCH_INDEX))

    def step(self, tokens: Array, start: int, count: int, rows: tuple[int, ...] | None = None) -> Step:
        """All rows alike: of ``tokens`` ``[batch, width]`` the first ``count`` count, from position ``start`` on.

        What is behind them is padding where the graph can tell it, else as real as wrong proposals are.
        """
        places = np.arange(tokens.shape[1])
        positions = np.where(places < (count if self.pads else len(places)), start + places, -1)
        past = np.full(len(tokens), start, np.int64)
        return Step.at(tokens, np.tile(positions, (len(tokens), 1)), past, rows)

    def bind(self, batch: int) -> tuple[dict[str, CacheBinding], Interface]:
        """How a batch of so many rows is fed: its caches and its interface."""
        if batch not in self._bound:
            named = self._named(batch) if self.guesses else {}
            sizes = Sizes(batch, self.ctx, named, buffers=False)
            bindings = {b.input: b for b in bind_caches(self.subject.model, sizes, self.subject.states)}
            self._bound[batch] = bindings, Interface.of(self.subject, bindings, self.ctx)
        return self._bound[batch]

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

    def feeds(self, caches: Caches, step: Step, others: Mapping[str, Array] | None = None) -> Arrays:
        """Every input of a run, ``others`` as they are. Raises UsageError for an input that nothing tells."""
        bindings, interface = self.bind(len(step.ids))
        first = self.first(len(step.ids), step.width) if self.guesses else {}
        fed: Arrays = {**first, **interface.feeds(step)}
        for name, binding in bindings.items():
            if name not in caches.states:
                caches.states[name] = open_cache(binding)
                if binding.policy is CachePolicy.CONSTANT and name in first:
                    caches.states[name].value = first[name]
            if (back := caches.held - step.held) > 0:
                caches.states[name].keep(np.full(len(step.ids), step.held), np.zeros(len(step.ids), np.int64), back)
            fed[name] = as_array(caches.states[name].past(binding))
        fed |= others or {}
        names = [value.name or "" for value in self.subject.model.graph.inputs if not value.is_initializer()]
        if missing := [name for name in names if name not in fed]:
            found = self.subject.roles[missing[0]].value
            raise UsageError(f"nothing tells what to feed {missing[0]!r}", where=self.subject.name, found=found)
        return {name: fed[name] for name in names}

    def take(self, caches: Caches, step: Step, outputs: Mapping[str, Array], keep: int | None = None) -> None:
        """Carries a run's states on: of each row's tokens all real ones, or the first ``keep``."""
        counts = step.counts if keep is None else np.full(len(step.ids), keep)
        for name, binding in self.bind(len(step.ids))[0].items():
            output = outputs.get(binding.output or "")
            if binding.policy is not CachePolicy.CONSTANT and output is not None:
                caches.states[name].done(output, step.width, binding)
                caches.states[name].keep(step.past, counts, step.width)
        caches.held = int((step.past + counts).max())

    def run(
        self, caches: Caches, step: Step, keep: int | None = None, others: Mapping[str, Array] | None = None
    ) -> Arrays:
        """Feeds, runs and carries on. Raises RunError where the graph rejects the inputs."""
        outputs = self.session.run(self.feeds(caches, step, others))
        self.take(caches, step, outputs, keep)
        return outputs

    @property
    def answer(self) -> str:
        """The output that holds the logits, or the tokens in their place."""
        value = logits_output(self.subject.model, self.subject.states)
        assert value is not None, "a decoder has an output beside its states"
        return value.name or ""

    def logits(self, outputs: Mapping[str, Array], step: Step) -> tuple[int, Array]:
        """The logits as ``[batch, rows, …]``, and which token its first row belongs to."""
        array, seen = outputs[self.answer], int(step.counts.max())
        rows = array.shape[1]
        first = 0 if rows == step.width else max(seen - rows, 0)
        return first, array[:, : max(0, min(rows, seen - first))]
