"""The symbols that sized a state are replaced in every remaining type once the state is gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from ...core.errors import PassRefused
from ...interface.roles import Role
from ...states.base import State
from ...symbolic.dims import Dim, Expr, free_symbols, substitute
from ...symbolic.symbols import dims_of
from .detach_state import Unbinding


def vanishing_symbols(
    model: ir.Model, states: Sequence[State], roles: Mapping[str, Role], unbinding: Unbinding
) -> dict[str, Dim]:
    """The binding to substitute in every remaining type: past → 0, ctx → seq, total → seq.

    Raises PassRefused where a remaining input has a dimension that would become 0 (it is sized by the past alone).
    """
    gone = {id(state.input) for state in states} | {id(state.output) for state in states}
    binding: dict[str, Dim] = {}
    for state in states:
        binding.update(_length(state, unbinding))
    for state in states:
        binding.update(_total(state, binding, model, roles))
    binding.update(_mask_totals(model, gone, roles, binding))
    _refuse_empty(model, gone, binding)
    return binding


def _length(state: State, unbinding: Unbinding) -> dict[str, Dim]:
    """``past`` → 0 where the state grows, ``ctx`` → the run's own length where it is written in place."""
    dims = dims_of(state.input) if state.input is not None else None
    if dims is None or state.axis is None or not state.traits.keeps_rows:
        return {}
    dim = dims[state.axis]
    if not isinstance(dim, Expr) or not dim.is_symbol:
        return {}
    name = next(iter(free_symbols(dim)))
    if not state.in_place:
        return {name: 0}
    tokens = unbinding.tokens(state)
    sequence = (dims_of(tokens[0]) or ())[tokens[1]] if tokens is not None else None
    return {name: sequence} if sequence is not None else {}


def _total(state: State, binding: Mapping[str, Dim], model: ir.Model, roles: Mapping[str, Role]) -> dict[str, Dim]:
    """A bare symbol on the output's axis (``total_sequence_length``) becomes the sequence length."""
    dims = dims_of(state.output) if state.output is not None else None
    if dims is None or state.axis is None or not state.traits.longer_output or state.axis >= len(dims):
        return {}
    dim = dims[state.axis]
    sequence = _sequence(model, roles)
    if not isinstance(dim, Expr) or not dim.is_symbol or sequence is None or dim == sequence:
        return {}
    name = next(iter(free_symbols(dim)))
    return {} if name in binding else {name: sequence}


def _mask_totals(
    model: ir.Model, gone: set[int], roles: Mapping[str, Role], binding: Mapping[str, Dim]
) -> dict[str, Dim]:
    """An attention mask's own symbol for past + seq, which no other input shares, becomes the sequence length."""
    sequence = _sequence(model, roles)
    found: dict[str, Dim] = {}
    for value in model.graph.inputs:
        dims = dims_of(value) if id(value) not in gone else None
        if sequence is None or not dims or roles.get(value.name or "") is not Role.ATTENTION_MASK:
            continue
        last = dims[-1]
        if isinstance(last, Expr) and last.is_symbol and last != sequence:
            name = next(iter(free_symbols(last)))
            others = [v for v in model.graph.inputs if v is not value and id(v) not in gone]
            if name not in binding and not any(name in free_symbols(d) for v in others for d in dims_of(v) or ()):
                found[name] = sequence
    return found


def _sequence(model: ir.Model, roles: Mapping[str, Role]) -> Dim | None:
    """The sequence dimension: axis 1 of the token ids (or of the embeddings that stand for them)."""
    for value in model.graph.inputs:
        if roles.get(value.name or "") in (Role.TOKEN_IDS, Role.EMBEDDINGS):
            dims = dims_of(value)
            if dims is not None and len(dims) > 1:
                return dims[1]
    return None


def _refuse_empty(model: ir.Model, gone: set[int], binding: Mapping[str, Dim]) -> None:
    for value in model.graph.inputs:
        if id(value) in gone:
            continue
        for axis, dim in enumerate(dims_of(value) or ()):
            if dim is not None and dim != 0 and substitute(dim, binding) == 0:
                raise PassRefused(
                    f"input {value.name!r} is sized by the past alone and would be empty",
                    where=f"graph {model.graph.name!r}",
                    found=f"dimension {axis} is {dim}",
                    wanted="an input sized by past + seq, or by seq",
                    hint="Name the dimension apart from the cache's if it is another one.",
                )
