"""Plays a text through a whole decoder at a layer's sizes, and gives what it computes where the layer was cut out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import UsageError
from ...ir.core.specialization import Specialization, SpecRole
from ...ir.program.clone import Clone, materialize
from ...ir.program.program import Program
from ...ir.states import Layout, State
from ..decode.host import Host, new_rows
from ..decode.kv_cache import Caches
from ..decode.step import Step
from .contract import Contract

OWNER = "extract-layer"  # the pass whose names sums have

Arrays = dict[str, np.ndarray]


def layer_specs(program: Program) -> list[Specialization]:
    """The layers that a program holds."""
    found = program.specializations
    return [spec for spec in found if spec.role is SpecRole.LAYER and spec.graph in program.names]


@dataclass(frozen=True)
class Run:
    """One run of the whole graph: all that it was given and computed, and where its tokens lie in the caches."""

    known: Arrays
    step: Step


@dataclass(eq=False)
class WholeGraph:
    """The graph that a layer was cut out of, giving what the layer takes and gives; ``opened`` names fused norms."""

    player: Host
    contract: Contract
    opened: list[str]

    @classmethod
    def of(cls, original: Program, result: Program, spec: Specialization) -> WholeGraph:
        """Raises what Session raises, and UsageError where the original has no tensors of these names."""
        contract = Contract.of(original, result, spec.graph)
        whole = _whole(original, spec, contract)
        exposed, opened = _exposed(whole, _foreign(whole, result.graph(spec.graph), contract), spec.graph)
        bound = materialize(whole, Clone(spec.graph, spec.binding), spec.graph)  # as it was, for what it carries
        player = Host.of(exposed, f"{spec.graph} (original)", bound=bound)
        return cls(player, contract, opened)

    @property
    def length(self) -> int:
        """How many tokens a run takes."""
        return self.player.length or 1

    @property
    def states(self) -> dict[str, State]:
        """What the whole graph carries, by output."""
        return {s.output.name or "": s for s in self.player.subject.states if s.output is not None}

    def text(self, seed: int, runs: int) -> np.ndarray:
        """Random token ids for that many runs, or as many as the caches hold."""
        ids = next(iter(self.player.subject.tables.values()), 64)
        size = (self.player.batch or 1, max(1, min(runs, self.player.room // self.length)) * self.length)
        return np.random.default_rng([seed, self.length]).integers(0, ids, size)

    def runs(self, text: np.ndarray, last: int) -> Iterator[Run]:
        """Run by run, ``text`` being ``[batch, runs * length]`` of which the last run has ``last`` real tokens.

        Raises RunError where the graph rejects a run.
        """
        caches = Caches(len(text))
        rows = tuple(range(len(text))) if self.player.chooses_rows else None
        for start in range(0, text.shape[1], self.length):
            count = last if start + self.length == text.shape[1] else self.length
            step = self.player.step(text[:, start : start + self.length], start, count, rows)
            feed = self.player.feeds(caches, step)
            outputs = self.player.session.run(feed)
            self.player.take(caches, step, outputs)
            yield Run(feed | outputs, step)

    def inputs(self, names: list[str], run: Run) -> Arrays:
        """What a layer that takes these names is fed."""
        return {name: run.known[self.contract.old_input(name)] for name in names}

    def answers(self, name: str, rows: np.ndarray, run: Run) -> tuple[np.ndarray, np.ndarray]:
        """What the whole graph says of an output of the layer, and of the layer's own ``rows`` the same part.

        Of a state that leaves whole, all; of one inside an operator those that hold tokens, as others hold anything.
        """
        whole = run.known[self.contract.old_output(name)]
        state = self.states.get(self.contract.old_output(name))
        if state is None or state.axis is None or (whole.shape == rows.shape and state.layout is not Layout.FUSED):
            return whole, rows
        count = run.step.count
        if whole.shape == rows.shape:
            used = range(min(run.step.held + count, whole.shape[state.axis]))
            return np.take(whole, used, axis=state.axis), np.take(rows, used, axis=state.axis)
        return new_rows(state, whole, run.step), np.take(rows, range(count), axis=state.axis)

    def is_settled(self, name: str, run: Run) -> bool:
        """Whether the whole graph answers the same when it runs again: not so in rows that it never initialized."""
        old = self.contract.old_output(name)
        again = self.player.session.run({key: run.known[key] for key in self.player.session.input_names})
        return np.array_equal(run.known[old], again[old])


def _whole(original: Program, spec: Specialization, contract: Contract) -> ir.Model:
    """The graph that a layer was cut out of: what the cut recorded, or the original's only graph."""
    for source in contract.chain.lineage:
        if source in original.names:
            return original.graph(source)
    if len(original.graphs) == 1:
        return next(iter(original.graphs.values()))
    raise UsageError(f"the original has no graph that {spec.graph!r} was cut out of", found=", ".join(original.names))


def _foreign(whole: ir.Model, layer: ir.Model, contract: Contract) -> list[str]:
    """What a layer takes and gives that the whole graph computes and does not give, under the original's names."""
    given = {value.name for value in (*whole.graph.inputs, *whole.graph.outputs)}
    taken = [contract.old_input(value.name or "") for value in layer.graph.inputs]
    answered = [contract.old_output(value.name or "") for value in layer.graph.outputs]
    return [name for name in dict.fromkeys((*taken, *answered)) if name not in given]


def _exposed(whole: ir.Model, names: list[str], layer: str) -> tuple[ir.Model, list[str]]:
    """A copy that also gives the named tensors; fused norms whose sums are among them are opened."""
    from ...ir.rewrite.layer.open_norm import open_named

    copy = whole.clone()
    opened = open_named(copy.graph, names, OWNER)
    values = ir.convenience.create_value_mapping(copy.graph, include_subgraphs=False)
    for name in names:
        if name not in values:
            raise UsageError(
                f"the original has no tensor {name!r}, which {layer} takes or gives",
                hint="Compare with the program that the layer was cut out of, as it was saved before the cut.",
            )
        copy.graph.outputs.append(values[name])
    return copy, opened
