"""Reads what a decoder takes from outside a text: how many rows an encoder gave, where a result fixes their number."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...ir.interface.roles import Role
from ...ir.states import Layout
from ..session.subject import Subject, static

_OUTSIDE = (Role.FEATURES, Role.ENCODER_MASK, Role.ADAPTER, Role.OTHER)
_TOLD = (Role.TOKEN_IDS, Role.EMBEDDINGS, Role.POSITIONS, Role.ATTENTION_MASK)


def outside_sizes(original: Subject, results: Sequence[Subject], old_name: Callable[[str], str]) -> dict[str, int]:
    """Symbol of the original -> number that a result has in its place, on inputs that no token changes.

    Two results that fix two numbers give the first; ``old_name`` tells what the original calls an input of theirs.
    """
    before = {value.name or "": value for value in original.model.graph.inputs}
    known = {d.value for role in _TOLD for v in original.inputs(role) for d in v.shape or () if not isinstance(d, int)}
    found: dict[str, int] = {}
    for subject in results:
        for value in subject.model.graph.inputs:
            old = before.get(old_name(value.name or ""))
            if old is None or not _from_outside(subject, value.name or ""):
                continue
            for dim, size in zip(old.shape or (), value.shape or (), strict=False):
                number = static(size)
                if number is None or isinstance(dim, int) or not dim.value or static(dim) is not None:
                    continue
                if dim.value not in known:
                    found.setdefault(dim.value, number)
    return found


def _from_outside(subject: Subject, name: str) -> bool:
    state = subject.by_input.get(name)
    return subject.roles[name] in _OUTSIDE or (state is not None and state.layout is Layout.FIXED)
