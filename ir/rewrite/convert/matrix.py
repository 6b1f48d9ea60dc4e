"""A table of steps says which layout turns into which; paths are made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from ...core.errors import PassRefused
from ...states import Layout, Pairing, State, find_states
from ...states.names import crossed
from ...states.suspects import suspected_states
from .context import ConversionContext, survey
from .opset import raise_opset
from .options import Ops, Options, To
from .outcome import Outcome, rename_retained
from .to_append import scatter_to_append
from .to_delta import delta_to_whole, whole_to_delta
from .to_scatter import append_to_scatter
from .writes import TENSOR_SCATTER_OPSET

Step = Callable[[ir.Model, Sequence[State], Sequence[State], Options], Outcome]
Form = tuple[Layout, str]
"""A layout and, for delta, what the graph does with the rows inside: the layout that the whole cache has."""


def _with_scene(edge: Callable[[ConversionContext], Outcome]) -> Step:
    def step(model: ir.Model, states: Sequence[State], chosen: Sequence[State], options: Options) -> Outcome:
        return edge(survey(model, states, chosen, options))

    return step


_APPEND: Form = (Layout.APPEND, "")
_SCATTER: Form = (Layout.SCATTER, "")
_DELTA_GROWING: Form = (Layout.DELTA, "append")
_DELTA_FIXED: Form = (Layout.DELTA, "scatter")
_growing = _with_scene(scatter_to_append)


def _in_place(model: ir.Model, states: Sequence[State], chosen: Sequence[State], options: Options) -> Outcome:
    if options.ops is Ops.TENSOR_SCATTER and model.opset_imports.get("", 0) < TENSOR_SCATTER_OPSET:
        raise_opset(model, TENSOR_SCATTER_OPSET, options.owner)
        states = find_states(model)
        chosen = [state for state in states if state.is_movable]
    return append_to_scatter(survey(model, states, chosen, options))


PATHS: Mapping[tuple[Form, To], tuple[Step, ...]] = {
    (_APPEND, To.APPEND): (),
    (_APPEND, To.SCATTER): (_in_place,),
    (_APPEND, To.DELTA): (whole_to_delta,),
    (_SCATTER, To.APPEND): (_growing,),
    (_SCATTER, To.SCATTER): (),
    (_SCATTER, To.DELTA): (whole_to_delta,),
    (_DELTA_GROWING, To.APPEND): (delta_to_whole,),
    (_DELTA_GROWING, To.SCATTER): (delta_to_whole, _in_place),
    (_DELTA_GROWING, To.DELTA): (),
    (_DELTA_FIXED, To.APPEND): (delta_to_whole, _growing),
    (_DELTA_FIXED, To.SCATTER): (delta_to_whole,),
    (_DELTA_FIXED, To.DELTA): (),
}
"""For each form and target the steps between; none where the graph is there already."""

_LEFT = {
    Layout.FUSED: "{n} states live inside fused operators, which need no conversion: give the past its full length and "
    "let the mask or the lengths tell how much of it is used",
    Layout.FIXED: "{n} states are only read (cross-attention) and stay as they are",
    Layout.RECURRENT: "{n} recurrent states stay as they are and take in every row of a run: a prefill takes whole "
    "chunks, and a decode of one token what is left of a prompt",
    Layout.WINDOW: "{n} states of the last rows stay as they are",
}


def convert(model: ir.Model, to: To, options: Options, states: Sequence[State] | None = None) -> Outcome:
    """Converts all states of the graph in place; raises PassRefused, perhaps half-way: see ``restored_on_failure``.

    ``states`` are those of the graph where the caller found them already.
    """
    total = Outcome()
    states = find_states(model) if states is None else states
    _refuse_unfit(model, states, to, options)
    path, total.notes = _path(model, states, to, options), _left(states)
    if not path and any(state.is_movable for state in states):
        total.notes = (*total.notes, f"the states have the layout {to.value} already")
    for number, step in enumerate(path):
        states = find_states(model) if number else states  # each step leaves other states
        found = step(model, states, [s for s in states if s.is_movable], options)
        total = replace(
            found,
            notes=(*total.notes, *found.notes),
            consecutive=(*total.consecutive, *found.consecutive),
            cache_rows=(*total.cache_rows, *found.cache_rows),
            renamed={**total.renamed, **found.renamed},
        )
    if to is To.SCATTER:
        total.renamed |= _rename_others(model, states, options, converted=bool(path))
    return total


def _rename_others(model: ir.Model, states: Sequence[State], options: Options, *, converted: bool) -> dict[str, str]:
    """Old names and new ones of the states that were written in place already, or have no rows to write."""
    carried = [s for s in states if s.pairing is Pairing.BOTH and s.traits.changes and s.layout is not Layout.FUSED]
    return rename_retained(model, [s for s in carried if not (converted and s.is_movable)], options)


def _path(model: ir.Model, states: Sequence[State], to: To, options: Options) -> tuple[Step, ...]:
    forms = {_form(state) for state in states if state.is_movable}
    if not forms:
        return ()
    if len(forms) > 1:
        raise PassRefused(
            "the graph's states have several layouts",
            where=f"{options.owner}, graph {model.graph.name!r}",
            found=", ".join(sorted(layout.value for layout, _ in forms)),
            wanted="one layout for all that grow",
        )
    return PATHS[forms.pop(), to]


def _form(state: State) -> Form:
    if state.layout is not Layout.DELTA:
        return (state.layout, "")
    return _DELTA_GROWING if state.inside is Layout.APPEND else _DELTA_FIXED


def _left(states: Sequence[State]) -> tuple[str, ...]:
    counts = {layout: sum(state.layout is layout for state in states) for layout in _LEFT}
    return tuple(_LEFT[layout].format(n=n) for layout, n in counts.items() if n)


def _refuse_suspects(where: str, model: ir.Model, states: Sequence[State]) -> None:
    """What no layout explains is not left behind unseen."""
    if suspects := suspected_states(model, states):
        raise PassRefused(
            "something is carried from run to run in a way that is not understood",
            where=where,
            found=", ".join(suspect.text for suspect in suspects[:4]),
            wanted="states appended by Concat, written at positions, or updated by one operator or recurrence",
            hint="`inspect` lists them as unpaired. Export the model with caches of one of these forms.",
        )


def _refuse_crossed(where: str, moving: Sequence[State]) -> None:
    """A host may go by names, and the graph's would lead it astray."""
    for state in crossed(moving):
        raise PassRefused(
            f"state {state.name!r} leaves as {state.output.name!r}, the name of another state's next value",  # pyright: ignore[reportOptionalMemberAccess]
            where=where,
            found="a host that goes by names carries it into another cache",
            wanted="outputs named after the pasts that they update",
            hint="Rename the outputs, or mend the export, then run again.",
        )


def _refuse_unfit(model: ir.Model, states: Sequence[State], to: To, options: Options) -> None:
    where = f"{options.owner}, graph {model.graph.name!r}"
    moving = [state for state in states if state.is_movable]
    for state in moving:
        if state.branch is not None:
            raise PassRefused(
                f"state {state.name!r} lives inside a branch of If {state.branch.holder!r}",
                where=where,
                wanted="a graph with the branch chosen",
                hint=f"Put select-branch{{input={state.branch.switch} value=true}} (or false) before this pass: "
                "the run with a past.",
            )
    _refuse_suspects(where, model, states)
    for state in moving:
        if state.pairing is not Pairing.BOTH:
            raise PassRefused(
                f"state {state.name!r} has no {'output' if state.pairing is Pairing.INPUT_ONLY else 'input'}",
                where=where,
                found=state.evidence,
                wanted="a past and a present",
                hint="Convert the graph that has both (a decoder with past), not a prefill graph.",
            )
    _refuse_crossed(where, moving)
    stack = next((state for state in moving if state.stacked), None)
    if stack is not None and to is not To.APPEND:
        raise PassRefused(
            f"state {stack.name!r} holds several caches in one tensor",
            where=where,
            found=stack.evidence,
            wanted="a tensor for each cache",
            hint="Export the model with a past and a present for each layer's keys and values.",
        )
    padded = [state for state in states if state.takes_padding and state.layout is Layout.WINDOW]
    if padded and to is To.SCATTER and any(state.layout is not Layout.SCATTER for state in moving):
        raise PassRefused(
            f"state {padded[0].name!r} keeps the last rows of a run, padded ones too",
            where=where,
            found=padded[0].evidence,
            wanted="states that rows are appended to, and recurrent ones",
            hint="Windows of rows and growing caches share a mask here: export the model with full-length caches.",
        )
    if moving and any(state.layout is Layout.FUSED for state in states) and to in (To.SCATTER, To.APPEND):
        raise PassRefused(
            "some states live in fused operators and others do not",
            where=where,
            found=", ".join(sorted({state.layout.value for state in states})),
            wanted="states of one kind, as their lengths are one",
            hint="Expand the fused operators first.",
        )
    if to is To.DELTA and any(state.layout is Layout.FUSED for state in states):
        raise PassRefused(
            "a fused operator hands out its whole cache",
            where=where,
            wanted="states that are appended to or written at positions",
            hint="Expand the operator first.",
        )
