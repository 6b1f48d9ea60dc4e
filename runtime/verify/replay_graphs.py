"""The graphs of a replay are found and opened: the decoder of the original, and each clone with the sizes it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from ...ir.core.errors import OnnxPassesError
from ...ir.core.specialization import Specialization, SpecRole
from ...ir.interface.analysis import analysis_of
from ...ir.program.clone import Clone, materialize
from ...ir.program.contracts.padding import takes_whole_chunks
from ...ir.program.program import Program
from ...ir.states import Layout, Pairing, State
from ..decode.host import Host
from ..session.session import Optimization, Session

MAX_ROUNDS = 8


def replays(result: Program) -> list[Specialization]:
    """The prefills and decodes of a program that a replay can run; none where it is no such program."""
    names = set(result.names)
    kept = [s for s in result.specializations if s.role in (SpecRole.PREFILL, SpecRole.DECODE) and s.graph in names]
    if any(_pasts_of_two_lengths(result.graph(name)) for name in {spec.graph for spec in kept}):
        return []
    return kept if any(spec.role is SpecRole.DECODE for spec in kept) else []


def _pasts_of_two_lengths(model: ir.Model) -> bool:
    """Whether a past that grows has a fixed length beside another's, as a full cache beside a window: no text has both.

    onnxruntime-genai's Gemma 2 (0.18) is such a decode once its sizes are bound; single runs are compared then.
    """
    lengths, grows = set[int](), False
    for state in analysis_of(model).states:
        if state.axis is None or state.in_place or state.input is None or state.output is None:
            continue
        old, new = ((end.shape[state.axis] if end.shape is not None else None) for end in (state.input, state.output))
        if isinstance(old, int) and isinstance(new, int):
            lengths.add(old)
            grows = grows or new > old
    return grows and len(lengths) > 1


def decoder_of(program: Program) -> str:
    """The graph of the original that carries states from run to run."""
    for name, model in program.graphs.items():
        if any(s.pairing is Pairing.BOTH and s.traits.changes for s in analysis_of(model).states):
            return name
    raise OnnxPassesError("no graph of the original carries a state", found=", ".join(program.graphs))


def open_clone(result: Program, spec: Specialization) -> Host:
    """The clone's session, and its sizes: bound in the graph itself, or by the specialization."""
    model = result.graph(spec.graph)
    bound = _decided(materialize(model, Clone(spec.graph, spec.binding), spec.graph))
    player = Host.of(model, spec.graph, bound=bound)
    player.whole = takes_whole_chunks(result.contracts, spec.graph)
    Session(model, spec.graph, Optimization.BASIC)  # as a user would open it
    return player


def same_layouts(original: Host, players: Sequence[Host], old_input: Callable[[str], str]) -> bool:
    """Whether every state kept its name and layout, so that the original takes what a clone takes."""
    before = _layouts(original.subject.states, lambda name: name)
    return all(_layouts(player.subject.states, old_input) == before for player in players)


def _layouts(states: list[State], old: Callable[[str], str]) -> set[tuple[str, Layout]]:
    return {(old(s.input.name or ""), s.layout) for s in states if s.input is not None}


def has_branches(model: ir.Model) -> bool:
    """Whether a graph picks one of two branches somewhere."""
    return any(node.op_type == "If" for node in model.graph)


def _decided(model: ir.Model) -> ir.Model:
    """The one branch that a graph's sizes choose, where branches pick a clone by them; else the graph itself."""
    if not has_branches(model):
        return model
    from onnx_ir.passes.common import InlinePass

    from ...ir.rewrite.pack.body import DOMAIN
    from ...ir.rewrite.simplify import simplify_round

    if any(key[0] == DOMAIN for key in model.functions):
        InlinePass(criteria=lambda function: function.domain == DOMAIN)(model)
    for _ in range(MAX_ROUNDS):
        if not simplify_round(model):
            break
    return model
