"""Proposers guess the next tokens of a text without a model."""

from __future__ import annotations

from collections.abc import Callable

from ....ir.core.errors import UnknownNameError
from .arctic import Arctic, Trees
from .base import Nothing, Proposer, Source
from .ngram import NGram, lookup_candidates
from .suffix import Shared, Suffix


def _suffix() -> Source:
    shared = Shared()
    return lambda: Suffix(shared)


def _arctic() -> Source:
    trees = Trees()
    return lambda: Arctic(trees)


PROPOSERS: dict[str, Callable[[], Source]] = {
    "none": lambda: Nothing,
    "ngram": lambda: NGram,
    "suffix": _suffix,
    "arctic": _arctic,
}


def open_proposers(name: str) -> Source:
    """What opens a proposer for each text of a run; UnknownNameError where nothing has that name."""
    if name not in PROPOSERS:
        raise UnknownNameError("proposer", name, PROPOSERS)
    return PROPOSERS[name]()


__all__ = [
    "PROPOSERS",
    "Arctic",
    "NGram",
    "Nothing",
    "Proposer",
    "Shared",
    "Source",
    "Suffix",
    "lookup_candidates",
    "open_proposers",
]
