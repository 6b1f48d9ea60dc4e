"""Runs a program on onnxruntime: one session per graph, states of every layout kept and fed back between runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import OnnxPassesError, UsageError
from ...ir.interface.logits import logits_output
from ...ir.program.program import Program
from ...ir.symbolic.symbols import dims_of
from ..session.legalize import legalized
from ..session.session import Optimization, RunError, Session
from ..session.subject import Subject
from .caches import CacheBinding, CachePolicy, Sizes, bind_caches
from .kv_cache import KVCache, open_cache
from .step import Interface

Arrays = dict[str, np.ndarray]


class NotDecodable(OnnxPassesError):
    """A program that cannot be decoded with: no tokens in, no logits out, a state that cannot be kept."""


@dataclass(frozen=True)
class Bound:
    """Where a run reads and writes: arrays of inputs, of outputs of known size, and where the others come out."""

    binding: Any
    fed: Arrays
    given: Arrays
    order: Mapping[str, int]
    pasts: list[Any]  # onnxruntime keeps no reference to what it reads


class GraphSession(Session):
    """One graph of a program: its session, its states, and the arrays that its runs read and write."""

    def __init__(self, model: ir.Model, name: str, sizes: Sizes, optimization: Optimization | None) -> None:
        self.subject = Subject.of(model, name)
        states = self.subject.states
        self.caches = {binding.input: binding for binding in bind_caches(model, sizes, states)}
        self.interface = Interface.of(self.subject, self.caches, sizes.ctx)
        carried = {s.output.name for s in states if s.output is not None and s.name in self.caches}
        outputs = [value for value in model.graph.outputs if value.name not in carried]
        answer = logits_output(model, states)  # first among the results: what decoding looks at
        self.results = {value.name or "": value for value in sorted(outputs, key=lambda value: value is not answer)}
        self.inputs = {v.name or "": v for v in model.graph.inputs if not v.is_initializer()}
        self.free = [name for name in self.inputs if name not in self.caches]
        super().__init__(legalized(model).model, name, optimization)
        self._bindings: dict[tuple[object, ...], Bound] = {}
        still = (CachePolicy.SHARED, CachePolicy.CONSTANT)
        self._moving = [name for name, b in self.caches.items() if b.policy not in still and b.output is not None]
        self._settled = all(b.policy in (*still, CachePolicy.SWAPPED) for b in self.caches.values())

    def execute(self, feeds: Mapping[str, np.ndarray], memory: Mapping[str, KVCache], width: int) -> Arrays:
        """One run; the results are valid until the next one. RunError leaves every state as it was."""
        bound = self._bound(feeds, memory)
        for name, array in feeds.items():
            np.copyto(bound.fed[name], array, casting="unsafe")
        try:
            self._session.run_with_iobinding(bound.binding)
        except Exception as error:  # the binding's exceptions share no base class
            raise RunError(" ".join(str(error).split())[:400], where=self.name) from error
        return self._take(bound, memory, width)

    def forget(self) -> None:
        """Drops the bindings: the memory they point to is gone."""
        self._bindings.clear()

    def close(self) -> None:
        """Lets the session and its bindings go."""
        self.forget()
        self._session = None

    def _bound(self, feeds: Mapping[str, np.ndarray], memory: Mapping[str, KVCache]) -> Bound:
        """Where a run reads and writes: made once for the same sizes and places, or anew where states move."""
        if not self._settled:
            return self._bind(feeds, memory)
        turns = tuple(memory[name].array().ctypes.data for name in self._moving)
        key = (*((name, array.shape) for name, array in feeds.items()), turns)
        if key not in self._bindings:
            self._bindings[key] = self._bind(feeds, memory)
        return self._bindings[key]

    def _bind(self, feeds: Mapping[str, np.ndarray], memory: Mapping[str, KVCache]) -> Bound:
        binding = self._session.io_binding()
        fed: Arrays = {}
        for name, array in feeds.items():
            dtype = self.inputs[name].dtype
            assert dtype is not None, "a graph that runs has types"
            fed[name] = np.empty(array.shape, dtype.numpy())
            _bind_input(binding, name, fed[name], int(dtype))
        pasts: list[Any] = []
        for name, cache in self.caches.items():
            pasts.append(memory[name].past(cache))
            _bind_input(binding, name, pasts[-1], int(cache.dtype))
            if cache.output is not None and cache.policy is not CachePolicy.CONSTANT:
                _bind_output(binding, cache.output, memory[name].target(), int(cache.dtype))
        given = {name: array for name, value in self.results.items() if (array := _room_for(value)) is not None}
        for name, value in self.results.items():
            _bind_output(binding, name, given.get(name), int(value.dtype or 0))
        written = [c.output for c in self.caches.values() if c.output and c.policy is not CachePolicy.CONSTANT]
        return Bound(binding, fed, given, {name: at for at, name in enumerate((*written, *self.results))}, pasts)

    def _take(self, bound: Bound, memory: Mapping[str, KVCache], width: int) -> Arrays:
        """The results, once every state that moves has taken what the run gave."""
        if not self._moving and len(bound.given) == len(self.results):
            return bound.given
        values = bound.binding.get_outputs()
        for name in self._moving:
            target = memory[name].target()
            output = values[bound.order[self.caches[name].output or ""]] if target is None else target
            memory[name].done(output, width, self.caches[name])
        found = {name: values[bound.order[name]].numpy() for name in self.results if name not in bound.given}
        return {name: bound.given[name] if name in bound.given else found[name] for name in self.results}


def _bind_input(binding: Any, name: str, value: Any, kind: int) -> None:
    """Lets a run read an array where it lies, or onnxruntime's own value."""
    if isinstance(value, np.ndarray):
        binding.bind_input(name, "cpu", 0, kind, value.shape, value.ctypes.data)
    else:
        binding.bind_ortvalue_input(name, value)


def _bind_output(binding: Any, name: str, array: np.ndarray | None, kind: int) -> None:
    """Lets a run write into an array, or allocate what it gives."""
    if array is not None:
        binding.bind_output(name, "cpu", 0, kind, array.shape, array.ctypes.data)
    else:
        binding.bind_output(name, "cpu")


def _room_for(value: ir.Value) -> np.ndarray | None:
    """An array for an output of known size."""
    sizes = [dim for dim in dims_of(value) or (None,) if isinstance(dim, int)]
    if value.dtype is None or value.shape is None or len(sizes) != len(value.shape):
        return None
    return np.empty(sizes, value.dtype.numpy())


class StateSession:
    """A program's graphs with one memory: what one graph leaves in a state, the next one finds there.

    States belong to the session; a failed run leaves them as they were.
    """

    def __init__(self, program: Program, sizes: Sizes, optimization: Optimization | None = None) -> None:
        self.graphs: dict[str, GraphSession] = {}
        try:
            for name in program.names:
                self.graphs[name] = GraphSession(program.graph(name), name, sizes, optimization)
        except BaseException:
            self.close()
            raise
        self.memory: dict[str, KVCache] = {}
        self._grown: list[KVCache] = []
        self.reset()

    def reset(self) -> None:
        """Every state as before the first run."""
        bindings: dict[str, CacheBinding] = {}
        buffers = (CachePolicy.SHARED, CachePolicy.SWAPPED)
        for graph in self.graphs.values():
            for name, binding in graph.caches.items():
                first = bindings.setdefault(name, binding)
                if first.sizes != binding.sizes and first.policy is binding.policy and first.policy in buffers:
                    raise UsageError(
                        "two graphs keep this state in other sizes",
                        where=f"{graph.name}, input {name!r}",
                        found=list(binding.sizes),
                        wanted=list(first.sizes),
                        hint="Clone both with the same context and batch.",
                    )
        self.memory = {name: open_cache(binding) for name, binding in bindings.items()}
        self._grown = [cache for cache in self.memory.values() if not cache.fixed]
        for graph in self.graphs.values():
            graph.forget()

    def keep(self, before: np.ndarray, counts: np.ndarray, width: int) -> None:
        """Of the last run's ``width`` tokens each row's first ``counts`` stay, behind the ``before`` that it held."""
        for cache in self._grown:
            cache.keep(before, counts, width)

    def close(self) -> None:
        """Lets every session and every state go."""
        for graph in self.graphs.values():
            graph.close()
        self.graphs = {}
        self.memory = {}
