"""Runs a program on onnxruntime: one session per graph, states of every layout kept and fed back between runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import UnknownNameError, UsageError
from ...ir.interface.logits import logits_output
from ...ir.interface.roles import Role
from ...ir.program.program import Program
from ...ir.symbolic.symbols import dims_of
from ..session.legalize import legalized
from ..session.session import Optimization, RunError, Session
from ..session.subject import Subject
from .holdings import Hold, Holding, Sizes, holdings_of
from .memory import Kept, bind_input, bind_output, keeper

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Bound:
    """Where a run reads and writes: arrays of inputs, of outputs of known size, and where the others come out."""

    binding: Any
    fed: Arrays
    given: Arrays
    order: Mapping[str, int]


class GraphSession(Session):
    """One graph of a program: its session, its states, and the arrays that its runs read and write."""

    def __init__(self, model: ir.Model, name: str, sizes: Sizes, optimization: Optimization) -> None:
        self.subject = Subject.of(model, name)
        self.holdings = {holding.input: holding for holding in holdings_of(model, sizes, self.subject.states)}
        carried = {state.output.name for state in self.subject.states if state.output is not None}
        carried -= {s.output.name for s in self.subject.states if s.output is not None and s.name not in self.holdings}
        outputs = [value for value in model.graph.outputs if value.name not in carried]
        answer = logits_output(model, self.subject.states)  # first among the results: what decoding looks at
        self.results = {value.name or "": value for value in sorted(outputs, key=lambda value: value is not answer)}
        self.inputs = {v.name or "": v for v in model.graph.inputs if not v.is_initializer()}
        self.free = [name for name in self.inputs if name not in self.holdings]
        super().__init__(legalized(model).model, name, optimization)
        self._bindings: dict[tuple[object, ...], Bound] = {}
        still = (Hold.SHARED, Hold.CONSTANT)
        self._moving = [name for name, h in self.holdings.items() if h.hold not in still and h.output is not None]
        self._settled = all(h.hold in (*still, Hold.SWAPPED) for h in self.holdings.values())

    @property
    def is_language(self) -> bool:
        """Whether it takes tokens, or what stands for them; others (a vision encoder) run before it."""
        roles = set(self.subject.roles.values())
        return bool(roles & {Role.TOKEN_IDS, Role.EMBEDDINGS, Role.STATE})

    def execute(self, feeds: Mapping[str, np.ndarray], memory: Mapping[str, Kept], width: int) -> Arrays:
        """One run; the results are valid until the next one. RunError leaves every state as it was."""
        bound = self._bound(feeds, memory, width)
        for name, array in feeds.items():
            np.copyto(bound.fed[name], array, casting="unsafe")
        try:
            self._session.run_with_iobinding(bound.binding)
        except Exception as error:  # the binding's exceptions share no base class
            raise RunError(" ".join(str(error).split())[:400], where=self.name) from error
        return self._take(bound, memory)

    def forget(self) -> None:
        """Drops the bindings: the memory they point to is gone."""
        self._bindings.clear()

    def close(self) -> None:
        """Lets the session and its bindings go."""
        self.forget()
        self._session = None

    def _bound(self, feeds: Mapping[str, np.ndarray], memory: Mapping[str, Kept], width: int) -> Bound:
        """Where a run reads and writes: made once for the same sizes and places, or anew where states move."""
        if not self._settled:
            return self._bind(feeds, memory, width)
        turns = tuple(memory[name].array().ctypes.data for name in self._moving)
        key = (*((name, array.shape) for name, array in feeds.items()), turns)
        if key not in self._bindings:
            self._bindings[key] = self._bind(feeds, memory, width)
        return self._bindings[key]

    def _bind(self, feeds: Mapping[str, np.ndarray], memory: Mapping[str, Kept], width: int) -> Bound:
        binding = self._session.io_binding()
        fed: Arrays = {}
        for name, array in feeds.items():
            dtype = self.inputs[name].dtype
            assert dtype is not None, "a graph that runs has types"
            fed[name] = np.empty(array.shape, dtype.numpy())
            bind_input(binding, name, fed[name], int(dtype))
        for name, holding in self.holdings.items():
            memory[name].bind(binding, holding, width)
        given = {name: array for name, value in self.results.items() if (array := _room_for(value)) is not None}
        for name, value in self.results.items():
            if name in given:
                assert value.dtype is not None, "a graph that runs has types"
                bind_output(binding, name, given[name], int(value.dtype))
            else:
                binding.bind_output(name, "cpu")
        written = [h.output for h in self.holdings.values() if h.output is not None and h.hold is not Hold.CONSTANT]
        return Bound(binding, fed, given, {name: at for at, name in enumerate((*written, *self.results))})

    def _take(self, bound: Bound, memory: Mapping[str, Kept]) -> Arrays:
        """The results, once every state that moves has taken what the run gave."""
        if not self._moving and len(bound.given) == len(self.results):
            return bound.given
        values = bound.binding.get_outputs()
        for name in self._moving:
            memory[name].done(values[bound.order[self.holdings[name].output or ""]])
        found = {name: values[bound.order[name]].numpy() for name in self.results if name not in bound.given}
        return {name: bound.given[name] if name in bound.given else found[name] for name in self.results}


def _room_for(value: ir.Value) -> np.ndarray | None:
    """An array for an output of known size."""
    sizes = [dim for dim in dims_of(value) or (None,) if isinstance(dim, int)]
    if value.dtype is None or value.shape is None or len(sizes) != len(value.shape):
        return None
    return np.empty(sizes, value.dtype.numpy())


class StateSession:
    """A program's graphs with one memory: what one graph leaves in a state, the next one finds there.

    ``run`` takes inputs by name and hides how many graphs that is: inputs of an encoder (pixels) run it first, and its
    outputs go to the inputs of the same names. States belong to the session; a failed run leaves them as they were.
    """

    def __init__(
        self, program: Program, sizes: Sizes | None = None, *, optimization: Optimization = Optimization.ALL
    ) -> None:
        self.sizes = sizes or Sizes()
        self.graphs: dict[str, GraphSession] = {}
        try:
            for name in program.names:
                self.graphs[name] = GraphSession(program.graph(name), name, self.sizes, optimization)
        except BaseException:
            self.close()
            raise
        self.memory: dict[str, Kept] = {}
        self._grown: list[Kept] = []
        self.reset()

    def reset(self) -> None:
        """Every state as before the first run."""
        holdings: dict[str, Holding] = {}
        for graph in self.graphs.values():
            for name, holding in graph.holdings.items():
                first = holdings.setdefault(name, holding)
                if (
                    first.sizes != holding.sizes
                    and first.hold is holding.hold
                    and first.hold in (Hold.SHARED, Hold.SWAPPED)
                ):
                    raise UsageError(
                        "two graphs keep this state in other sizes",
                        where=f"{graph.name}, input {name!r}",
                        found=list(holding.sizes),
                        wanted=list(first.sizes),
                        hint="Clone both with the same context and batch.",
                    )
        self.memory = {name: keeper(holding) for name, holding in holdings.items()}
        self._grown = [kept for kept in self.memory.values() if not kept.fixed]
        for graph in self.graphs.values():
            graph.forget()

    def run(self, inputs: Mapping[str, np.ndarray], graph: str | None = None) -> Arrays:
        """Every output that is no state, of the graphs that these inputs are for.

        ``graph`` names the one that takes the tokens; without it the one whose fixed sizes they have. Raises UsageError
        for inputs that no graph takes or that it lacks, RunError where onnxruntime fails.
        """
        rest, results = dict(inputs), Arrays()
        for encoder in (g for g in self.graphs.values() if not g.is_language and set(g.free) <= rest.keys()):
            found = encoder.execute({name: rest[name] for name in encoder.free}, self.memory, 1)
            results |= {name: array.copy() for name, array in found.items()}
            rest |= results
        names = {name for g in self.graphs.values() for name in g.inputs}
        for name in rest.keys() - names - results.keys():
            raise UnknownNameError("input", name, names)
        languages = [g for g in self.graphs.values() if g.is_language]
        if not languages or (graph is None and results and not any(n in g.free for g in languages for n in inputs)):
            return results
        chosen = self._graph(graph) if graph is not None else self._fitting(languages, rest)
        for name, array in rest.items():
            if name in chosen.holdings:
                self.put(name, array)
        missing = [name for name in chosen.free if name not in rest]
        if missing:
            raise UsageError("inputs are missing", where=chosen.name, found=", ".join(rest), wanted=", ".join(missing))
        feeds = {name: np.asarray(rest[name]) for name in chosen.free}
        found = chosen.execute(feeds, self.memory, width_of(chosen, feeds))
        return results | {name: array.copy() for name, array in found.items()}

    def put(self, name: str, array: np.ndarray) -> None:
        """Sets a state. Raises UsageError where it has another size than the session's memory."""
        kept = self.memory[name]
        current = kept.array()
        if getattr(kept, "replace", None) is not None:
            kept.replace(array.astype(current.dtype))  # pyright: ignore[reportAttributeAccessIssue]
        elif current.shape == array.shape:
            np.copyto(current, array, casting="unsafe")
        elif hasattr(kept, "values"):
            kept.values = np.ascontiguousarray(array, current.dtype)  # pyright: ignore[reportAttributeAccessIssue]
            for graph in self.graphs.values():
                graph.forget()
        else:
            raise UsageError("wrong shape", where=f"state {name!r}", found=array.shape, wanted=current.shape)

    def keep(self, before: np.ndarray, counts: np.ndarray, width: int) -> None:
        """Of the last run's ``width`` tokens each row's first ``counts`` stay, behind the ``before`` that it held."""
        for kept in self._grown:
            kept.keep(before, counts, width)

    def close(self) -> None:
        """Lets every session and every state go."""
        for graph in self.graphs.values():
            graph.close()
        self.graphs = {}
        self.memory = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _graph(self, name: str) -> GraphSession:
        if name not in self.graphs:
            raise UnknownNameError("graph", name, self.graphs)
        return self.graphs[name]

    def _fitting(self, languages: list[GraphSession], inputs: Mapping[str, np.ndarray]) -> GraphSession:
        for graph in languages:
            if all(name in inputs and _fits(graph.inputs[name], inputs[name]) for name in graph.free):
                return graph
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
        raise UsageError("no graph takes inputs of these sizes", found=shapes, wanted=", ".join(self.graphs))


def width_of(graph: GraphSession, feeds: Mapping[str, np.ndarray]) -> int:
    """How many tokens a run takes."""
    for role in (Role.TOKEN_IDS, Role.EMBEDDINGS, Role.POSITIONS):
        for value in graph.subject.inputs(role):
            array = feeds.get(value.name or "")
            if array is not None and array.ndim >= 2:
                return int(array.shape[1] if role is not Role.POSITIONS else array.shape[-1])
    return 1


def _fits(value: ir.Value, array: np.ndarray) -> bool:
    dims = dims_of(value)
    if dims is None:
        return True
    return len(dims) == array.ndim and all(
        size == dim for dim, size in zip(dims, array.shape, strict=True) if isinstance(dim, int)
    )
