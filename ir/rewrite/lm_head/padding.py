"""A graph that selects logits by the end of a run cannot tell its padding; one that looks it up can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from ...core.errors import PassRefused
from ...interface.roles import Role
from ...shapes.infer import Facts
from ...states import State
from .find import find_head, head_tokens
from .kept import kept_rows


def answers_end_of_run(
    model: ir.Model, owner: str, states: Sequence[State], roles: Mapping[str, Role], facts: Facts
) -> bool:
    """Whether the head is given the run's last rows whatever they hold: a Slice or Gather that no input places.

    False too where the head is not found: then only a run tells.
    """
    tokens = head_tokens(model, roles, facts)
    if tokens is None:
        return False
    try:
        kept = kept_rows(find_head(model, owner, states, roles, facts), tokens, facts, owner)
    except PassRefused:
        return False
    return kept.selects and kept.last is None
