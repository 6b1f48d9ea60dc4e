"""When taking a state out is exact, and the refusal that says why it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from ...core.dataflow import reached
from ...core.errors import PassRefused
from ...core.operators import of
from ...interface.analysis import analysis_of
from ...interface.apart import taken_together
from ...interface.roles import Role
from ...interface.visible import CAUSAL, contradictions
from ...states.base import Layout, Pairing, State
from ...states.ports import KEY_VALUE_INPUTS, NEEDS_CACHE, PORTS
from ...states.ranges import cache_ranges, unmasked_reads
from ...states.signatures import Signatures, reads_in_order
from ...states.suspects import Suspect, suspected_states
from ...symbolic.dims import Dim, Expr
from .detach_state import Unbinding, initial_dims

HALF_BITS = 16


def refuse_unprovable(
    model: ir.Model,
    owner: str,
    states: Sequence[State],
    chosen: Sequence[State],
    unbinding: Unbinding,
    roles: Mapping[str, Role],
) -> None:
    """Raises PassRefused, naming the state and the reason, where removing ``chosen`` would not be exact."""
    where = f"{owner}, graph {model.graph.name!r}"
    _refuse_hidden(where, chosen)
    _refuse_half_paired(where, states, chosen)
    _refuse_shared_lengths(where, states, chosen)
    _refuse_ports(where, chosen)
    for state in (s for s in chosen if s.layout is Layout.SCATTER):
        _refuse_positions(where, state, unbinding)  # before their lengths: a ring is refused as a ring
    for state in chosen:
        if state.pairing is not Pairing.OUTPUT_ONLY and state.traits.changes:
            _refuse_length(where, state, unbinding)
            _refuse_unknown_dims(where, state, unbinding)
    scattered = [state for state in chosen if state.in_place]
    signatures = Signatures(model)
    for state in scattered:
        _refuse_readers(where, state, signatures)
    for state in unmasked_reads(scattered, signatures, cache_ranges(scattered)):
        raise PassRefused(
            f"no mask hides the rows of {state.name!r} that were never written, so the cached graph attends to them",
            where=where,
            wanted="a mask built from the cache's row numbers, or a mask input over its rows",
            hint="Such a graph has no exact cache-less form; export it with a causal mask.",
        )
    _refuse_numbers(where, model, scattered, roles)
    for state, why in contradictions(model, scattered, roles, chunks=False):
        raise PassRefused(
            f"state {state.name!r} is not read as a causal cache: {why}",
            where=where,
            wanted=CAUSAL,
            hint="Such a graph has no exact cache-less form; export it with a causal mask.",
        )


def _refuse_numbers(where: str, model: ir.Model, scattered: Sequence[State], roles: Mapping[str, Role]) -> None:
    """The host chooses how long a cache is that is written in place; without the cache nothing has that length."""
    facts = analysis_of(model).facts if scattered else None
    for found in taken_together(model, scattered, roles, facts, None) if facts is not None else ():
        raise PassRefused(
            "the length of a cache is used as a number",
            where=where,
            found=str(found),
            wanted="a length that only sizes tensors, ranges and masks",
            hint="Such a graph has no exact cache-less form: its answers depend on the context that its host chose.",
        )


def refuse_half_known(where: str, model: ir.Model, states: Sequence[State], chosen: Sequence[State]) -> None:
    """Raises PassRefused, naming them, where states are suspected that no layout explains.

    A selection of states may leave them as they are, both ends in place; it may not take one end alone.
    """
    if any(state.branch is not None for state in chosen):
        return  # the branch is to be chosen first, and says so itself
    suspects = suspected_states(model, states)
    ends = {id(value) for state in chosen for value in (state.input, state.output)}
    if len(chosen) < len(states):
        suspects = [s for s in suspects if id(s.input) in ends or id(s.output) in ends]
    if suspects:
        raise PassRefused(
            "something is carried from run to run in a way that is not understood",
            where=where,
            found=", ".join(suspect.text for suspect in suspects[:4])
            + (f" and {len(suspects) - 4} more" if len(suspects) > 4 else ""),
            wanted="states appended by Concat, written at positions, or updated by one operator or recurrence",
            hint=_in_branches(model, suspects)
            or _of_defaults(suspects)
            or "Each of these outputs has the type of an input, and is computed from it or named after it; `inspect` "
            "lists them as unpaired. Without both ends no single run is exact: export the model without its caches, or "
            "keep them.",
        )


def _of_defaults(suspects: Sequence[Suspect]) -> str:
    """What to do about pasts that may be left out: what they start from is then the file's business, not the pass's."""
    if not any(suspect.input.is_initializer() for suspect in suspects):
        return ""
    return (
        "These inputs may be left out, as initializers of their names give defaults: remove the initializers from the "
        "file, so that the pasts are inputs like others."
    )


def _in_branches(model: ir.Model, suspects: Sequence[Suspect]) -> str:
    """What to do about states that an If updates: the input that decides it is fixed first."""
    holders = [node for s in suspects if (node := s.output.producer()) is not None and of(node).decides == 0]
    tests = {node.inputs[0] for node in holders if of(node).bodies}
    single = [v for v in model.graph.inputs if v.dtype is not None and not v.dtype.is_floating_point()]
    deciding = [str(value.name) for value in single if not tests.isdisjoint(reached([value], {}))]
    if len(holders) < len(suspects) or not deciding:
        return ""
    return (
        f"They live in the branches of {holders[0].op_type} {holders[0].name!r}: put select-input{{input={deciding[0]} "
        "value=VALUE} before this pass, so that one branch is left."
    )


def _refuse_hidden(where: str, chosen: Sequence[State]) -> None:
    """A state inside If branches waits for the branch to be chosen."""
    for state in chosen:
        if state.branch is not None:
            raise PassRefused(
                f"state {state.name!r} lives inside a branch of If {state.branch.holder!r}",
                where=where,
                wanted="a graph with the branch chosen",
                hint=f"Put select-input{{input={state.branch.switch} value={state.branch.value}}} before this pass, or "
                "another value that the input takes."
                if state.branch.value
                else f"Put select-branch{{input={state.branch.switch} value=false}} (or true) before this pass: "
                "true is the run with a past.",
            )


def _refuse_half_paired(where: str, states: Sequence[State], chosen: Sequence[State]) -> None:
    """An output alone is only dropped where no other state of its kind is paired (a prefill graph's)."""
    paired = {state.kind for state in states if state.pairing is Pairing.BOTH}
    for state in chosen:
        if state.pairing is Pairing.INPUT_ONLY and state.traits.changes:
            raise PassRefused(
                f"state {state.name!r} is updated but its new value is no output",
                where=where,
                found=f"only the input; {state.evidence}",
                wanted="an output that carries it on",
                hint="Add the missing output to the graph, or remove the input by hand, then run again.",
            )
        if state.pairing is Pairing.OUTPUT_ONLY and state.kind in paired:
            raise PassRefused(
                f"state output {state.name!r} has no input to carry it back",
                where=where,
                found=f"only the output; {state.evidence}",
                wanted="an input that is its past, as the graph's other states have",
                hint="Add the missing input, or drop the output, then run again.",
            )


def _refuse_ports(where: str, chosen: Sequence[State]) -> None:
    """An operator's ports are cleared together, and only where it works without them."""
    going: dict[int, set[int]] = {}
    for state in chosen:
        if state.port is not None and state.update is not None:
            going.setdefault(id(state.update), set()).add(state.port.past)
    for state in chosen:
        port, node = state.port, state.update
        if port is None or node is None:
            continue
        if not port.optional or node.op_type in NEEDS_CACHE:
            raise PassRefused(
                f"{node.op_type} works on its cache and has no form without one",
                where=f"{where}, node {node.name!r}",
                found=f"state {state.name!r} at input {port.past}",
                hint="Export the model with an attention operator whose past is optional.",
            )
        if _is_rounded(state):
            raise PassRefused(
                f"{node.op_type} attends to its cache as rounded to {state.input.dtype}",  # pyright: ignore[reportOptionalMemberAccess]
                where=f"{where}, node {node.name!r}",
                found=f"state {state.name!r} at input {port.past}",
                wanted="a cache in the precision of the new keys and values",
                hint="Without the cache nothing rounds them, and results differ; export the model with a float cache.",
            )
        ports = PORTS[node.domain, node.op_type]
        connected = {p.past for p in ports if p.past < len(node.inputs) and node.inputs[p.past] is not None}
        if connected - going[id(node)]:
            raise PassRefused(
                f"the past ports of {node.op_type} go together",
                where=f"{where}, node {node.name!r}",
                found=f"input {port.past} to clear, {sorted(connected - going[id(node)])} to keep",
                hint="Widen kinds= or layers=, or leave them out.",
            )


def _is_rounded(state: State) -> bool:
    """True for keys or values that an attention keeps as integers or 8-bit floats, rounding new rows itself."""
    dtype, node = state.input.dtype if state.input is not None else None, state.update
    moved = [step for step in state.chain if step.op_type != "Gather"]  # lines chosen for a beam stay what they are
    if node is None or dtype is None or moved or (node.domain, node.op_type) not in KEY_VALUE_INPUTS:
        return False
    return not (dtype.is_floating_point() and dtype.bitwidth >= HALF_BITS)


def _refuse_shared_lengths(where: str, states: Sequence[State], chosen: Sequence[State]) -> None:
    lengths: dict[Dim | None, State] = {s.length: s for s in chosen if isinstance(s.length, Expr)}
    kept = [state for state in states if all(state is not other for other in chosen)]
    for state in kept:
        other = lengths.get(state.length) if state.axis is not None else None
        if other is not None:
            raise PassRefused(
                f"state {state.name!r} stays but shares its length '{state.length}' with {other.name!r}, which goes",
                where=where,
                wanted="all states of one length together",
                hint="Widen layers= or kinds=, or leave them out.",
            )


def _refuse_length(where: str, state: State, unbinding: Unbinding) -> None:
    if state.layout is Layout.WINDOW and state.axis is None:
        raise PassRefused(
            f"state {state.name!r} is rewritten in place in a way that is not understood",
            where=where,
            found=state.evidence,
            wanted="rows appended by Concat, or written at positions by a scatter",
            hint="Export the model with a cache that grows, or with one that is written by index.",
        )
    if state.traits.shows_axis and state.axis is None:
        raise PassRefused(
            f"the axis on which state {state.name!r} grows is not clear",
            where=where,
            found=state.evidence,
            hint="Give the graph's input and output their shapes (symbolic ones will do), then run again.",
        )
    rows = state.length
    if state.layout is not Layout.RECURRENT and isinstance(rows, int) and rows and not unbinding.keeps_context(state):
        raise PassRefused(
            f"the length of state {state.name!r} is baked into the graph",
            where=where,
            found=f"{rows} rows on axis {state.axis}",
            wanted="a symbolic length",
            hint="The graph's masks and shapes hold that number too. A decoder's cache can be exported with a dynamic "
            "length; a fixed left context is part of the model: keep it, and fix the other sizes by "
            "specialize{family=raw symbols=SYMBOL:SIZE},bind.",
        )


def _refuse_unknown_dims(where: str, state: State, unbinding: Unbinding) -> None:
    assert state.input is not None
    needed = [(n, i) for n, i in state.input.uses() if n is not state.update and n not in state.chain]
    if not needed:
        return
    for axis, source in enumerate(initial_dims(state, unbinding)):
        if source is None:
            raise PassRefused(
                f"dimension {axis} of state {state.name!r} follows from no remaining input",
                where=where,
                found=str(state.input.shape),
                wanted="the same symbol on an input that stays",
                hint="Name the batch dimension alike on the state and on the token ids, then run again: "
                f"rename-io{{dims={state.name}.{axis}:batch,INPUT.0:batch}} does where dimensions have no name.",
            )


def _refuse_positions(where: str, state: State, unbinding: Unbinding) -> None:
    if unbinding.source(state) is None and not state.starts_at_zero:
        raise PassRefused(
            f"the rows of state {state.name!r} are written at positions that are computed in the graph",
            where=where,
            found=f"{state.positions.name!r}" if state.positions is not None else "no positions",
            wanted="positions read from a graph input as they are, or counted from one",
            hint="A ring (modulo) or an offset has no exact cache-less form here.",
        )
    if unbinding.tokens(state) is None:
        raise PassRefused(
            f"nothing tells how many rows a run writes into state {state.name!r}",
            where=where,
            wanted="positions or token ids with a sequence dimension",
            hint="Give the graph's token ids their shape, then run again.",
        )


def _refuse_readers(where: str, state: State, signatures: Signatures) -> None:
    """Reading row i for key i is what makes the new rows stand for the cache."""
    for reader in state.readers:
        access = signatures.gather(reader)
        if access is None or not reads_in_order(access.positions):
            raise PassRefused(
                f"the rows of state {state.name!r} are read in an order that is not understood",
                where=f"{where}, node {reader.name!r}",
                found=access.positions.name if access is not None and access.positions is not None else reader.op_type,
                wanted="row numbers 0..n-1, with a replacement where they exceed the last position",
                hint="Such a graph has no exact cache-less form here.",
            )
