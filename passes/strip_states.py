"""strip-states takes the carried states out of the graph, and all that only served them."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedFunctionsPass

from ..ir.core.errors import PassRefused
from ..ir.core.scopes import remove_dead
from ..ir.interface.analysis import analysis_of, forget
from ..ir.interface.roles import Role
from ..ir.program.contracts.positions import AnyPositions, KeysOfRun, OrderedPositions, PositionRows, ZeroPosition
from ..ir.program.contracts.states import StatesRemoved
from ..ir.rewrite.builder import Builder
from ..ir.rewrite.strip.detach_state import Unbinding, anchors_of, take_out
from ..ir.rewrite.strip.exactness import refuse_half_known, refuse_unprovable
from ..ir.rewrite.strip.functions import release_functions
from ..ir.rewrite.strip.initial import refuse_unknown_start, starts_of, told_states
from ..ir.rewrite.strip.key_positions import mask_by_key_positions
from ..ir.rewrite.strip.known_lengths import fix_known_lengths
from ..ir.rewrite.strip.run_lengths import KeyCount, drop_key_counts, key_counts
from ..ir.rewrite.strip.symbol_cleanup import vanishing_symbols
from ..ir.states import Layout, Pairing, State
from ..ir.states.control_flow_outputs import inline_cache_functions
from ..ir.states.signatures import Signatures
from ..ir.states.start import Start
from ..ir.symbolic.symbols import substitute_symbols
from .base import GraphResult, Pass


class Positions(enum.Enum):
    """Which positions a single-shot run may be given."""

    ORDERED = "ordered"
    ANY = "any"


@dataclass(frozen=True)
class StripStates(Pass):
    """Replaces each carried state by its initial value and removes its input, its output and all that only served it.

    Before → after::

        present = Concat(past, k)          →  (k takes present's place)
        cache = CtxScatter(past, pos, k)   →  (k takes the cache's place, its rows read whole)
        Shape(past)                        →  [batch, heads, 0 or seq, head_dim]

    1. ``append``: the past has length 0; exact for every input. Several caches in one tensor begin without rows too.
    2. ``scatter``, ``positions=ordered``: rows are written at 0..n-1 with right padding -1, so row i of the cache is
       token i; bit-equal. Recorded as an assumption.
    3. ``scatter``, ``positions=any``: each row's non-negative positions are a permutation of 0..n-1, -1 anywhere; the
       masks compare key positions instead of row numbers; equal within 2e-6. On append graphs the same as ordered.
    4. Symbols that only sized the cache go, ``past + seq`` becomes ``seq`` in every type, inputs that only indexed the
       cache (``batch_index``) go with it.

    5. ``fused``: the operator's past ports are cleared, its present outputs kept unconnected; bit-equal.
    6. ``recurrent``: the state starts from zeros of its own shape (a convolution's: as many rows as it looks back),
       from its initializer where the input has one, or from ``init``; counters of rows written start from 0.
    7. ``window``, ``delta``: as append; a window of fixed length in a graph without tokens (the left context of a
       streaming encoder) starts from zeros of its own shape. ``fixed`` (cross-attention) stays as it is: a run still
       needs what the encoder said; where ``kinds`` names ``cross`` its output goes and the input stays.
    8. An attention over a written cache (Attention-24) that counts its valid keys in an input loses the count, which
       must be the number of tokens: recorded. TensorScatter may be ``circular``, and may leave its index out.
    9. States inside local functions: the past leaves the function's signature and body, once for all calls (or, with
       positions=any, the function is inlined). Inside If branches: see select-branch.

    Left alone: outputs named like a state that are none (a note proposes a name). Refused: a state found in one
    direction only, a cache length baked into the graph, a recurrence that compares what it holds (a running maximum)
    and no ``init``, rows no mask hides, positions computed in a way that is not
    understood, and a selection that would leave states whose length a removed one tells.

    Attributes:
        layers: Only the states of these layers; all where empty.
        kinds: Only the states of these kinds (``key``, ``value``, ``conv`` …); all where empty.
        positions: What position inputs may hold.
        init: What recurrent states start from: a number, or a .npz file with an array of the state's name. For an
            input and output that no layout explains it says that they are a state.
    """

    name: ClassVar[str] = "strip-states"

    layers: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()
    positions: Positions = Positions.ORDERED
    init: Mapping[str, str] = field(default_factory=dict[str, str])

    def call(self, model: ir.Model) -> GraphResult:
        """Strips one graph; raises PassRefused, with nothing changed, where that would not be exact."""
        known = analysis_of(model)
        where = f"{self.name}, graph {model.graph.name!r}"
        states = [*known.states, *told_states(model, known.states, self.init)]
        chosen, kept = self._without_cross(self._choose(model, states))
        starts = starts_of(self.init, chosen, where)
        refuse_half_known(where, model, states, chosen)
        if not chosen:
            return GraphResult(model, False, notes=kept or ("no carried state in this graph: nothing to strip",))
        if any(state.function for state in chosen) and not self._let_go(model, chosen):
            inline_cache_functions(model)
            forget(model)
            return self.call(model)
        paired = [s for s in chosen if s.pairing is Pairing.BOTH and s.traits.changes]
        roles = known.roles
        unbinding = _prepare(model, roles, chosen, starts)
        refuse_unknown_start(where, paired, starts)
        if all(state.update is not None or state.stacked for state in paired):
            refuse_unprovable(model, self.name, states, chosen, unbinding, roles)
        binding = vanishing_symbols(model, chosen, roles, unbinding)
        counts = key_counts(paired, Signatures(model)) if unbinding.sequence is not None else []
        contracts = (*_contracts(paired, self.positions, unbinding), *_counted(counts, unbinding))
        states_at = _interface_of(chosen)
        before = len(model.graph), len(model.graph.inputs)
        unused_before = {id(value) for value in model.graph.inputs if not value.uses()}
        _drop_outputs(model.graph, chosen)
        if self.positions is Positions.ANY:
            mask_by_key_positions(paired, unbinding.builder)
        for state in paired:
            take_out(state, unbinding)
        drop_key_counts(counts, unbinding.dead)
        unbinding.builder.place_front()
        remove_dead(unbinding.dead)
        fix_known_lengths(model, paired, unbinding.builder)
        _drop_inputs(model.graph, chosen, unused_before)
        if model.functions:
            RemoveUnusedFunctionsPass()(model)
        substitute_symbols(model, binding)
        return GraphResult(
            model,
            True,
            counts={
                "states": len(chosen),
                "inputs": before[1] - len(model.graph.inputs),
                "outputs": sum(state.output is not None for state in chosen),
                "nodes": before[0] - len(model.graph),
            },
            notes=(*kept, *_notes(model, roles)),
            warnings=_warnings(model, roles),
            contracts=(*contracts, _removed(model, states_at, starts)),
        )

    def _without_cross(self, chosen: list[State]) -> tuple[list[State], tuple[str, ...]]:
        """Cross-attention states are read, not grown: a single run still needs them, and they stay as they are."""
        fixed = [state for state in chosen if state.layout is Layout.FIXED and state.kind == "cross"]
        if not fixed or "cross" in self.kinds:
            return chosen, ()
        gone = {id(state) for state in fixed}
        names = f"{', '.join(state.name for state in fixed[:2])}{' …' if len(fixed) > 2 else ''}"
        note = f"{len(fixed)} states hold an encoder's keys and values, which a single run still needs: {names} stay"
        return [state for state in chosen if id(state) not in gone], (note,)

    def _let_go(self, model: ir.Model, chosen: Sequence[State]) -> bool:
        """Whether the functions that hold the cache have dropped it from their signatures; else they are inlined.

        A copy with the functions inlined is stripped first: it proves the result, or refuses with nothing changed.
        """
        trial = model.clone()
        inline_cache_functions(trial)
        self.call(trial)
        return self.positions is Positions.ORDERED and release_functions(model, chosen, self.name)

    def _choose(self, model: ir.Model, states: Sequence[State]) -> list[State]:
        """The states that the options select; raises PassRefused for a layer or kind that no state has."""
        chosen = [
            state
            for state in states
            if (not self.layers or state.layer in self.layers) and (not self.kinds or state.kind in self.kinds)
        ]
        if states and not chosen:
            have = sorted({f"{state.kind} of layer {state.layer}" for state in states})
            raise PassRefused(
                "the options select no state",
                where=f"{self.name}, graph {model.graph.name!r}",
                found=", ".join(have[:12]),
                hint="Choose layers= and kinds= from what the graph has, or leave them out.",
            )
        return chosen


def _prepare(
    model: ir.Model, roles: dict[str, Role], chosen: Sequence[State], starts: Mapping[str, Start]
) -> Unbinding:
    gone = {id(state.input) for state in chosen}
    stay = [value for value in model.graph.inputs if id(value) not in gone and not value.is_initializer()]
    tokens = [v for v in stay if roles.get(v.name or "") in (Role.TOKEN_IDS, Role.EMBEDDINGS) and v.shape]
    batch = (tokens[0], 0) if tokens else None
    sequence = (tokens[0], 1) if tokens and len(tokens[0].shape or ()) > 1 else None
    text = bool(tokens) or Role.POSITIONS in roles.values()
    builder, anchors = Builder(model.graph, StripStates.name), anchors_of(stay)
    return Unbinding(builder, anchors, batch, sequence, text=text, starts=dict(starts))


def _drop_outputs(graph: ir.Graph, states: Iterable[State]) -> None:
    gone = {id(state.output) for state in states if state.output is not None}
    kept = [value for value in graph.outputs if id(value) not in gone]
    dropped = [value for value in graph.outputs if id(value) in gone]
    graph.outputs[:] = kept
    remove_dead([node for value in dropped if (node := value.producer()) is not None])


def _drop_inputs(graph: ir.Graph, states: Iterable[State], unused_before: set[int]) -> None:
    """Removes the states' inputs, and those that lost their last use with them."""
    gone = {id(state.input) for state in states if state.input is not None and state.traits.changes}
    graph.inputs[:] = [
        value
        for value in graph.inputs
        if id(value) not in gone and (value.uses() or value.is_graph_output() or id(value) in unused_before)
    ]


_CONTRACTS: dict[Positions, type[PositionRows]] = {Positions.ORDERED: OrderedPositions, Positions.ANY: AnyPositions}


def _contracts(states: Iterable[State], positions: Positions, unbinding: Unbinding) -> tuple[PositionRows, ...]:
    """What the position inputs must hold; an input that only said the first position goes, and was 0."""
    found: dict[str, PositionRows] = {}
    counters = {id(state.input) for state in states if state.layout is Layout.RECURRENT}
    for state in states:
        source = unbinding.source(state) if state.in_place else None
        if source is None or id(source.input) in counters:
            continue
        name = source.input.name or ""
        found[name] = _CONTRACTS[positions](name) if source.sequence_axis is not None else ZeroPosition(name)
    return tuple(found.values())


def _counted(counts: Iterable[KeyCount], unbinding: Unbinding) -> tuple[KeysOfRun, ...]:
    """An input that counted valid keys counts the tokens of the run."""
    tokens = unbinding.sequence
    names = dict.fromkeys(count.input.name or "" for count in counts)
    return tuple(KeysOfRun(name, tokens[0].name or "", tokens[1]) for name in names) if tokens is not None else ()


def _interface_of(states: Sequence[State]) -> tuple[list[str], list[str]]:
    """The inputs and outputs of the states."""
    inputs = [state.input.name or "" for state in states if state.input is not None]
    outputs = [state.output.name or "" for state in states if state.output is not None]
    return inputs, outputs


def _removed(model: ir.Model, states_at: tuple[list[str], list[str]], starts: Mapping[str, Start]) -> StatesRemoved:
    """Which of the states' inputs and outputs are gone."""
    left = {value.name for value in model.graph.inputs}, {value.name for value in model.graph.outputs}
    inputs, outputs = (
        tuple(name for name in names if name not in kept) for names, kept in zip(states_at, left, strict=True)
    )
    return StatesRemoved(inputs, outputs, starts={name: start for name, start in starts.items() if name in inputs})


def _warnings(model: ir.Model, roles: dict[str, Role]) -> tuple[str, ...]:
    baked = [
        value.name
        for value in model.graph.inputs
        if roles.get(value.name or "") is Role.TOKEN_IDS and value.shape is not None and list(value.shape)[-1:] == [1]
    ]
    return tuple(f"{name} has a sequence length of 1 baked in: the result takes one token a run" for name in baked)


_BETTER_NAMES = {Role.PIXELS: "image_embeds"}


def _notes(model: ir.Model, roles: dict[str, Role]) -> tuple[str, ...]:
    """Proposes names for outputs that are called a retained state and are none."""
    notes: list[str] = []
    taken = Counter(value.name for value in (*model.graph.inputs, *model.graph.outputs))
    for value in model.graph.outputs:
        stem = (value.name or "").removesuffix("_RetainedState")
        if stem == value.name:
            continue
        better = _BETTER_NAMES.get(roles.get(stem, Role.OTHER), f"{stem}_output")
        if not taken[better]:
            notes.append(f"{value.name} is no state and stays; rename-io{{map={value.name}:{better}}} says what it is")
    return tuple(notes)
