"""Decides whether a run of several tokens gives what one token a run gives, be they proposals or a prompt's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from ..core.constants import constant_of
from ..core.errors import PassRefused
from ..interface.analysis import analysis_of
from ..interface.apart import ALONE, taken_together
from ..interface.roles import Role
from ..interface.visible import CAUSAL, contradictions
from ..rewrite.lm_head import head_tokens
from ..rewrite.ownership import owner_of
from ..shapes.infer import Facts
from ..states import Pairing, State
from ..states.control_flow_outputs import inline_cache_functions
from ..states.ranges import cache_ranges, unmasked_reads
from ..states.signatures import Signatures
from ..symbolic.dims import Expr
from .findings import Findings

MAX_SHOWN = 3
_ROW_BY_ROW = frozenset({"convert-states", "keep-last-logits"})
"""Passes that put each token into the row of its position (TensorScatter's windows are shifted), or take rows out."""


def refuse_several(model: ir.Model, where: str) -> None:
    """Raises PassRefused where a run of several tokens is not what one token a run is; changes nothing."""
    if model.functions:
        model = model.clone()
        inline_cache_functions(model)
    known = analysis_of(model)
    carried = [s for s in known.states if s.traits.changes and s.pairing is Pairing.BOTH]
    found = Findings()
    check_several(model, carried, known.roles, known.facts, found)
    if found.problems:
        raise PassRefused(
            "a run of several tokens does not compute what one token a run does",
            where=where,
            found=" | ".join(dict.fromkeys(map(str, found.problems[:MAX_SHOWN]))),
            wanted=found.problems[0].help,
            hint="k=0 without a prefill makes a decode of one token a run, which is what the graph computes.",
        )


def check_several(
    model: ir.Model, states: Sequence[State], roles: Mapping[str, Role], facts: Facts, found: Findings
) -> None:
    """Each token sees the rows up to its own and nothing else of its run; what says otherwise becomes a problem."""
    _check_masks(model, states, roles, found)
    tokens = head_tokens(model, roles, facts)
    length = tokens.length if tokens is not None else None
    if not states or not isinstance(length, Expr) or not length.is_symbol:
        return  # without a state nothing ran before: what a run's tokens have of each other is all there is
    for together in taken_together(model, states, roles, facts, length):
        if owner_of(together.source) not in _ROW_BY_ROW:
            found.problem(together.place, together.clause, ALONE)
    for state in states:
        if _counts_runs(state):
            reason = "counts runs, of which there are fewer where a run takes several tokens"
            found.problem(state.name, reason, "a counter that each run adds its number of tokens to")


def _check_masks(model: ir.Model, states: Sequence[State], roles: Mapping[str, Role], found: Findings) -> None:
    """Rows of rejected tokens stay in a cache until they are written again: a mask must hide them till then."""
    scattered = [s for s in states if s.in_place and s.branch is None and s.update is not None]
    for state in unmasked_reads(scattered, Signatures(model), cache_ranges(scattered)):
        found.problem(
            state.name,
            "has rows that no mask hides, so rejected tokens stay visible",
            "a mask built from positions and the cache's row numbers, or a mask input over its rows",
        )
    for state, why in contradictions(model, scattered, roles, chunks=True):
        found.problem(state.name, f"is not read as a causal cache: {why}", CAUSAL)


def _counts_runs(state: State) -> bool:
    """True for a counter that every run adds one number to, however many tokens it takes."""
    node = state.update
    if state.kind != "length" or node is None or node.op_type != "Add":
        return False
    return any(constant_of(value) is not None for value in node.inputs)
