"""Decides whether rejected tokens can be rolled back: by each state's layout, and whether S = K + 1 tokens fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..core.constants import constant_of
from ..core.errors import PassRefused
from ..core.operators import of
from ..interface.analysis import analysis_of
from ..interface.roles import Role
from ..interface.usage import origins
from ..rewrite.lm_head import find_head, head_tokens, kept_rows
from ..shapes.demands import Demand, Demands, demands_of
from ..shapes.infer import Facts
from ..states import Layout, Pairing, State
from ..states.control_flow_outputs import inline_cache_functions
from ..states.names import crossed
from ..states.windows import window_sizes, writes_ring
from ..symbolic.dims import Dim, Expr
from .findings import Findings
from .several import check_several

BATCH = 7  # a batch that no length is taken for


@dataclass(eq=False)
class _Context:
    model: ir.Model
    k: int
    states: list[State]
    roles: dict[str, Role]
    facts: Facts
    found: Findings
    windows: tuple[int, ...] = ()

    def rows(self, state: State) -> int | None:
        """The fixed number of rows of a state's input."""
        shape = self.facts.shape(state.input) if state.input is not None else None
        size = shape[state.axis] if shape is not None and state.axis is not None and state.axis < len(shape) else None
        return size if isinstance(size, int) else None


def speculation_findings(model: ir.Model, k: int) -> Findings:
    """What stands against ``k`` proposals a step; the graph is left as it is, functions are opened in a copy."""
    if model.functions:
        model = model.clone()
        inline_cache_functions(model)
    known = analysis_of(model)
    states = [s for s in known.states if s.traits.changes]
    context = _Context(model, k, states, known.roles, known.facts, Findings())
    context.windows = window_sizes(model)
    carried = [state for state in states if state.pairing is Pairing.BOTH]
    context.found.states = len(carried)
    if not carried:
        context.found.notes.append("no state is carried from run to run: nothing has to be rolled back")
    _check_ends(context, states)
    if k < 1:
        context.found.notes.append("K=0 proposes nothing: nothing has to be rolled back")
        return context.found
    for state in carried:
        _check_state(context, state)
    check_several(model, carried, known.roles, known.facts, context.found)
    _check_operators(context, carried)
    if carried:
        _check_length(context, carried)
    context.found.notes[:] = dict.fromkeys(context.found.notes)
    context.found.warnings[:] = dict.fromkeys(context.found.warnings)
    return context.found


def _check_ends(context: _Context, states: Sequence[State]) -> None:
    """A past whose update leaves by no output is never written: no step has the last one's, for any K."""
    for state in crossed(states):
        context.found.problem(
            state.name,
            f"leaves as {state.output.name!r}, the name of another state's next value"  # pyright: ignore[reportOptionalMemberAccess]
            ", so a host that goes by names carries it into another cache",
            "a graph whose outputs are named after the pasts that they update",
        )
    for state in states:
        if state.pairing is Pairing.INPUT_ONLY and state.branch is None:
            context.found.problem(
                state.name,
                "is updated, but its new value is no output, so no later run has it",
                "a graph whose every past has the output that carries it on",
            )


def _check_state(context: _Context, state: State) -> None:
    if state.branch is not None:
        context.found.problem(
            state.name,
            f"lives inside a branch of If {state.branch.holder!r}",
            f"select-branch{{input={state.branch.switch} value=true}} (or false) first: the run with a past",
        )
        return
    check = _CHECKS.get(state.layout)
    if check is not None:
        check(context, state)


def _append(context: _Context, state: State) -> None:
    context.found.notes.append(
        "growing caches: after each step the host must cut the rows of rejected tokens off the present"
    )


def _delta(context: _Context, state: State) -> None:
    context.found.notes.append("the host owns the cache: it must not take over the rows of rejected tokens")


def _scatter(context: _Context, state: State) -> None:
    if writes_ring(state.positions) or state.is_ring:
        _ring_of(context, state, context.rows(state))
    elif state.starts_at_zero or (state.positions is not None and not _from_outside(state)):
        where = "from row 0 on in every run" if state.starts_at_zero else "at positions that no input tells"
        context.found.problem(
            state.name,
            f"is written {where}, so the next step cannot go back over rejected tokens",
            "write it at position_ids: convert-states{to=scatter} on a graph with a growing cache",
        )


def _from_outside(state: State) -> bool:
    return any(value.is_graph_input() for value in origins([state.positions]))


def _window(context: _Context, state: State) -> None:
    if state.axis is None:
        context.found.problem(
            state.name,
            "is rewritten in place in a way that is not understood",
            "a cache that grows, one that is written at positions, or K=0",
        )
        return
    rows = context.facts.shape(state.output) if state.output is not None else None
    size = rows[state.axis] if rows is not None else None
    _ring_of(context, state, size if isinstance(size, int) else _slice_rows(state))


def _slice_rows(state: State) -> int | None:
    """How many last rows the Slice that makes the output keeps."""
    node = state.output.producer() if state.output is not None else None
    starts = constant_of(node.inputs[1]) if node is not None and node.op_type == "Slice" else None
    if starts is None or starts.size != 1:
        return None
    start = int(starts.numpy().reshape(-1)[0])
    return -start if start < 0 else None


def _fused(context: _Context, state: State) -> None:
    if state.recurrent:
        _recurrent(context, state)
        return
    if state.is_ring:
        _ring_of(context, state, context.rows(state), _attribute(state, "local_window_size"))
    else:
        context.found.notes.append("fused caches: the host resets the length (or cuts the present) after each step")


def _attribute(state: State, name: str) -> int | None:
    """An integer attribute of the operator that updates the state."""
    found = state.update.attributes.get(name) if state.update is not None else None
    return found.as_int() if found is not None else None


def _ring_of(context: _Context, state: State, rows: int | None, window: int | None = None) -> None:
    """A ring forgets its oldest rows to make room for tokens that may be rejected: it needs K rows to spare."""
    if window is None and len(context.windows) == 1:
        window = context.windows[0]
    if rows is not None and window is not None and rows >= window + context.k:
        context.found.notes.append(f"rings of {rows} rows hold the window of {window} and K={context.k} tokens")
        return
    size = f"{rows} rows" if rows is not None else "as many rows as its window"
    seen = f"a window of {window}" if window is not None else "a window of unknown size"
    context.found.problem(
        state.name,
        f"is a ring of {size} for {seen}: rejected tokens overwrite the oldest live rows",
        f"a ring of at least window + {context.k} rows, a full-length cache, or K=0",
    )


def _recurrent(context: _Context, state: State) -> None:
    value = state.input
    if value is not None and value.dtype is not None and value.dtype.is_integer():
        context.found.notes.append(
            "counters of rows written: the host feeds the accepted count, not the one given back"
        )
        return
    window = _attribute(state, "state_window")
    if window is not None and window >= context.k + 1:
        context.found.notes.append(f"states with {window} snapshots a run: the host takes the accepted token's")
        return
    found = f" (state_window={window})" if window is not None else ""
    context.found.problem(
        state.name,
        f"is a recurrent state without a snapshot for each token{found}: it cannot go back over rejected ones",
        f"an export with per-token states (state_window ≥ {context.k + 1}), or K=0",
    )


_CHECKS: Mapping[Layout, Callable[[_Context, State], None]] = {
    Layout.APPEND: _append,
    Layout.SCATTER: _scatter,
    Layout.FUSED: _fused,
    Layout.DELTA: _delta,
    Layout.WINDOW: _window,
    Layout.RECURRENT: _recurrent,
}


def _check_operators(context: _Context, states: Sequence[State]) -> None:
    for state in states:
        node = state.update
        if node is None or state.layout is not Layout.FUSED:
            continue
        row = of(node)
        if row.one_token:
            remedy = "attention that takes any number of tokens (MultiHeadAttention, GroupQueryAttention), or K=0"
            context.found.problem(f"{node.op_type} {node.name!r}", "decodes one token a run", remedy)
        elif row.caution:
            context.found.warnings.append(f"{node.op_type}: {row.caution}")


def _check_length(context: _Context, states: Sequence[State]) -> None:
    """K + 1 tokens: by the declared length, then by binding the length and looking at what comes out."""
    tokens = head_tokens(context.model, context.roles, context.facts)
    wanted = context.k + 1
    if tokens is None:
        return
    if isinstance(tokens.length, int):
        if tokens.length != wanted:
            context.found.problem(
                f"input {tokens.value.name!r}",
                f"takes {tokens.length} token{'s' * (tokens.length != 1)} a run, and K={context.k} needs {wanted}",
                "an export with a symbolic sequence length (transformers: multi_token_decode=True)",
            )
        return
    if not tokens.length.is_symbol:
        return
    sizes: dict[str, Dim] = {str(tokens.length): wanted}
    if isinstance(tokens.batch, Expr) and tokens.batch.is_symbol and tokens.batch != tokens.length:
        sizes[str(tokens.batch)] = BATCH
    _compare(context, demands_of(context.model, sizes), {**sizes, str(tokens.length): 1}, states)


def _broken(demands: Demands) -> list[Demand]:
    """The demands that two numbers break, whatever the other symbols are."""
    return [
        item
        for item in demands.items
        if isinstance(item.left, int) and isinstance(item.right, int) and not item.relation.holds(item.left, item.right)
    ]


def _compare(context: _Context, several: Demands, single: Mapping[str, Dim], states: Sequence[State]) -> None:
    """What K + 1 tokens break and one token does not; caches that do not grow by them; logits without rows for them."""
    remedy = "an export that keeps the sequence length symbolic in its Reshape targets"
    wanted, bound = context.k + 1, several.facts
    new = _broken(several)
    if new:  # a second sweep only where something breaks
        usual = {item.node for item in _broken(demands_of(context.model, single))}
        new = [item for item in new if item.node not in usual]
    if new:
        item = new[0]
        reason = f"breaks with {wanted} tokens: {item.left} must be {item.relation.value} {item.right}"
        context.found.problem(item.place, reason, remedy)
        return
    for state in states:
        if state.traits.longer_output and not _grows_by(state, bound, wanted):
            context.found.problem(state.name, f"does not grow by {wanted} rows where {wanted} tokens come in", remedy)
    _check_rows(context, bound, remedy)


def _grows_by(state: State, bound: Facts, wanted: int) -> bool:
    past, present = (bound.shape(value) if value is not None else None for value in (state.input, state.carried))
    if past is None or present is None or state.axis is None or len(past) != len(present):
        return True
    if state.chain:  # the update may have another order of axes
        return True
    grown = present[state.axis] - past[state.axis]
    return grown in (wanted, 0) or (isinstance(grown, Expr) and state.layout is Layout.FUSED)


def _check_rows(context: _Context, bound: Facts, remedy: str) -> None:
    """The rows before the head are one for each token."""
    tokens = head_tokens(context.model, context.roles, bound)
    if tokens is None:
        return
    try:
        head = find_head(context.model, "", context.states, context.roles, bound)
    except PassRefused:
        return
    try:
        kept = kept_rows(head, tokens, bound, "")
    except PassRefused as refusal:
        context.found.problem(
            f"output {head.output.name!r}", f"has no row for each of {tokens.length} tokens ({refusal.found})", remedy
        )
        return
    declared = [value for value in kept.given_by if context.roles.get(value.name or "") is Role.LOGITS_TO_KEEP]
    if kept.selects and kept.count != tokens.length and not declared:
        context.found.warnings.append(
            f"{head.output.name} has {kept.count} rows where verifying K={context.k} needs {tokens.length}: "
            "put keep-last-logits before this pass"
        )
