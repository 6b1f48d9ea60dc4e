"""Families of models share how an entry is built before it has its name, and how sizes of a user are read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ...core.errors import UnknownNameError, UsageError
from ...core.specialization import MAX_SIZE, Specialization, SpecRole, distinct
from ..naming import infer_name, unique_names

Symbols = dict[str, int]


class FamilyError(UsageError):
    """Sizes that a family of models cannot have: zero, a prompt longer than the context, too many image tokens."""


@dataclass(frozen=True)
class Entry:
    """A specialization before its name is settled: ``tag`` is the name wanted, None where the symbols tell it."""

    role: SpecRole
    symbols: Symbols
    tag: str | None = None
    k: int | None = None
    logits_rows: int | None = None


def named(entries: Sequence[Entry], graph: str = "", others: Sequence[Specialization] = ()) -> list[Specialization]:
    """The specializations of ``entries`` that ``others`` do not have, in their order, no two alike, names unique."""
    new = [
        Specialization(
            name=entry.tag or infer_name(entry.symbols, index),
            role=entry.role,
            binding=entry.symbols,
            k=entry.k,
            logits_rows=entry.logits_rows,
            graph=graph,
        )
        for index, entry in enumerate(entries)
    ]
    kept = distinct([*others, *new])[len(distinct(others)) :]
    names = unique_names([item.name for item in kept], {item.name for item in others})
    return [item.model_copy(update={"name": name}) for name, item in zip(names, kept, strict=True)]


def size(options: Mapping[str, object], name: str, default: int | None = None) -> int | None:
    """A positive integer option, or ``default`` where it is not given; FamilyError for anything else."""
    given = options.get(name)
    return default if given is None else positive(name, given)


def positive(name: str, given: object, *, least: int = 1) -> int:
    """``given``, or the decimal that a text holds, from ``least`` on; FamilyError for anything else."""
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) <= len(str(MAX_SIZE)):
        given = int(given)
    if type(given) is int and least <= given <= MAX_SIZE:
        return given
    raise FamilyError("is no size", where=name, found=repr(given)[:80], wanted=f"an integer from {least} to {MAX_SIZE}")


def sizes(name: str, given: object, *, least: int = 1) -> tuple[int, ...] | None:
    """Integers out of one integer, a list, or the text of a list (``"[4096, 8192]"``); None for None."""
    if given is None:
        return None
    if isinstance(given, str):
        given = _listed(name, given)
    if isinstance(given, list | tuple):
        return tuple(positive(name, item, least=least) for item in cast("Sequence[object]", given))
    return (positive(name, given, least=least),)


def _listed(name: str, text: str) -> list[Any]:
    try:
        found = json.loads(text) if len(text) < 4096 else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise FamilyError("is no list", where=name, found=repr(text)[:80], wanted='integers, as in "[4096, 8192]"')
    return cast("list[Any]", found)


def check_options(options: Iterable[str], known: Iterable[str], family: str) -> None:
    """Raises UnknownNameError, with the nearest names, for an option that the family does not have."""
    names = sorted(set(known))
    for name in options:
        if name not in names:
            raise UnknownNameError("option", name, names, where=f"family {family}")
