"""What the clones or bindings of a decoder ask of their caller: padding, pasts of fixed length, rows to spare."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from ..core.specialization import Specialization, SpecRole
from ..interface.dimensions import DimensionAnalysis
from ..interface.roles import Role
from ..states import Layout, Pairing
from .contracts.padding import SpareRows, WholeChunks
from .contracts.sizes import CloneOf
from .contracts.states import StaticPast


def notes_on(graphs: Mapping[str, DimensionAnalysis], batch: int, longest: int) -> tuple[str, ...]:
    """What a runtime is known to refuse of them."""
    fused = any(
        s.update is not None and s.update.op_type == "GroupQueryAttention" for g in graphs.values() for s in g.states
    )
    if fused and batch > 1 and longest:
        return ("onnxruntime's CPU GroupQueryAttention takes several tokens after a past in a batch of 1 only",)
    return ()


def unhidden(graphs: Mapping[str, DimensionAnalysis]) -> tuple[str, ...]:
    """Caches of fixed length that nothing among the inputs tells the filled rows of."""
    found: list[str] = []
    for graph in graphs.values():
        counted = _TELLS_ROWS & set(graph.roles.values())
        grown = [s for s in graph.states if s.traits.gains_rows and s.pairing is Pairing.BOTH and s.axis is not None]
        if grown and not counted and not any(state.shares_buffer for state in grown):
            found.append(
                f"graph {graph.model.graph.name!r}: no input hides rows of {grown[0].name!r} that hold no token: "
                "a decode is right only where its past is full"
            )
    return tuple(found)


_TELLS_ROWS = {Role.ATTENTION_MASK, Role.CONTEXT_LENGTHS}


def clones_of(placed: Mapping[str, Sequence[Specialization]]) -> list[CloneOf]:
    """Which graph each clone is of, and what it is for."""
    return [
        CloneOf(graph=spec.name, base=base, role=spec.role.value, k=spec.k)
        for base, specs in placed.items()
        for spec in specs
    ]


def static_past(graphs: Mapping[str, DimensionAnalysis]) -> tuple[StaticPast, ...]:
    """What a static growing cache asks of its caller."""
    grown = [state for graph in graphs.values() for state in graph.states if state.layout is Layout.APPEND]
    if not grown:
        return ()
    names = [state.input.name or "" for state in grown if state.input is not None]
    return (StaticPast(tuple(dict.fromkeys(names))),)


def whole_chunks(
    graphs: Mapping[str, DimensionAnalysis],
    placed: Mapping[str, Sequence[Specialization]],
    blind: Collection[str],
    length: int,
) -> Iterator[WholeChunks]:
    """Which prefills answer the last row of a run, padding or not, or carry every row on in a recurrence."""
    carry = {
        base for base, graph in graphs.items() if any(s.takes_padding and s.input is not None for s in graph.states)
    }
    for carried in (False, True):
        bases = [base for base in placed if (base in carry if carried else base in blind and base not in carry)]
        specs = [spec for base in bases for spec in placed[base]]
        prefills = tuple(spec.name for spec in specs if spec.role is SpecRole.PREFILL)
        if prefills and length > 1:
            yield WholeChunks(length, carried=carried, graphs=prefills)


def spare_rows(
    graphs: Mapping[str, DimensionAnalysis], placed: Mapping[str, Sequence[Specialization]], ctx: int
) -> Iterator[SpareRows]:
    """Which caches keep a row for padding: those written at positions (TensorScatter takes an index instead)."""
    for base, graph in graphs.items():
        written = (s for s in graph.states if s.inside is Layout.SCATTER and s.pairing is Pairing.BOTH)
        at_positions = [s.name for s in written if s.update is None or s.update.op_type != "TensorScatter"]
        if at_positions:
            yield SpareRows(tuple(at_positions), ctx, graphs=tuple(spec.name for spec in placed[base]))
