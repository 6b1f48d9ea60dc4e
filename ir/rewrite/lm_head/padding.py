"""A graph that selects logits by the end of a run cannot tell its padding; one that looks it up can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from ...core.errors import PassRefused
from ...interface.roles import Role
from ...shapes.infer import Facts
from ...states import State
from ...symbolic.dims import Dim, substitute
from ...symbolic.symbols import dims_of
from .find import find_head, head_tokens
from .kept import kept_rows


def answers_end_of_run(
    model: ir.Model,
    owner: str,
    states: Sequence[State],
    roles: Mapping[str, Role],
    facts: Facts,
    binding: Mapping[str, int],
) -> bool:
    """Whether the head is given the run's last rows whatever they hold: no input places them, or one that cannot.

    At the sizes of ``binding`` a mask as long as a shared cache buffer has the run's tokens somewhere inside it: its
    last columns tell nothing of them (GroupQueryAttention, onnxruntime-genai 0.18). Where the head is not found, False:
    then only a run tells.
    """
    tokens = head_tokens(model, roles, facts)
    if tokens is None:
        return False
    try:
        kept = kept_rows(find_head(model, owner, states, roles, facts), tokens, facts, owner)
    except PassRefused:
        return False
    spanning = _cache_wide_masks(model, states, roles, binding)
    return kept.selects and (kept.last is None or any(value.name in spanning for value in kept.given_by))


def _cache_wide_masks(
    model: ir.Model, states: Sequence[State], roles: Mapping[str, Role], binding: Mapping[str, int]
) -> set[str]:
    """The attention masks that have as many columns as a shared cache buffer has rows."""
    rows: set[Dim] = set()
    for state in states:
        dims = dims_of(state.input) if state.shares_buffer and state.input is not None else None
        if dims is not None and state.axis is not None and (size := dims[state.axis]) is not None:
            rows.add(substitute(size, binding))
    masks = {value.name or "": dims_of(value) or () for value in model.graph.inputs}
    wide = {name: dims[1] for name, dims in masks.items() if roles.get(name) is Role.ATTENTION_MASK and len(dims) == 2}
    return {name for name, dim in wide.items() if dim is not None and substitute(dim, binding) in rows}
