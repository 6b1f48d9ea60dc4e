"""The fields of a parsed encodings file are read as the types that are wanted; an error names the object."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any, cast

from ..core.encoding import EncodingsInvalid
from .strict import StrictReader

MAX_INT = 1 << 53
MAX_SHOWN = 16  # names that a message repeats
READER = StrictReader("a file of encodings", EncodingsInvalid, EncodingsInvalid, max_bytes=64 << 20)


class Fields:
    """The fields of one object, each read as the type that is wanted; errors name the object."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise EncodingsInvalid("is no object", where=where, found=_shown(value))
        self._fields = cast("dict[str, Any]", value)
        self.where = where

    def names(self) -> list[str]:
        """The names of all fields."""
        return list(self._fields)

    def get(self, key: str) -> Any:
        """The field, or None."""
        return self._fields.get(key)

    def only(self, known: Collection[str]) -> None:
        """Refuses a field that is not ``known``: a misspelt one must not be lost."""
        for key in self._fields:
            if key not in known:
                wanted = ", ".join(islice(known, MAX_SHOWN)) + (", …" if len(known) > MAX_SHOWN else "")
                raise EncodingsInvalid(f"has the unknown field {key[:80]!r}", where=self.where, wanted=wanted)

    def text(self, key: str) -> str:
        """A text; refused where missing."""
        return self._typed(key, str, "a text")

    def whole(self, key: str) -> int:
        """A whole number; one written as ``-41.0`` too."""
        return as_whole(self._present(key), f"{self.where}, {key}")

    def number(self, key: str) -> float:
        """A finite number."""
        return as_number(self._present(key), f"{self.where}, {key}")

    def listed(self, key: str) -> list[Any]:
        """A list; refused where missing."""
        return self._typed(key, list, "a list")

    def mapping(self, key: str) -> dict[str, Any]:
        """An object; refused where missing."""
        return self._typed(key, dict, "an object")

    def _present(self, key: str) -> Any:
        if key not in self._fields:
            raise EncodingsInvalid(f"lacks {key!r}", where=self.where, found=", ".join(self._fields)[:120] or "nothing")
        return self._fields[key]

    def _typed(self, key: str, kind: type, wanted: str) -> Any:
        value = self._present(key)
        if not isinstance(value, kind):
            raise EncodingsInvalid(f"{key} is wrong", where=self.where, found=_shown(value), wanted=wanted)
        return value


def as_number(value: object, where: str) -> float:
    """A finite float out of a JSON number; EncodingsInvalid for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise EncodingsInvalid("is no finite number", where=where, found=_shown(value))
    return float(value)


def as_whole(value: object, where: str) -> int:
    """An integer out of a JSON number without fraction; EncodingsInvalid for anything else."""
    number = as_number(value, where)
    if number != int(number) or abs(number) > MAX_INT:
        raise EncodingsInvalid("is no whole number", where=where, found=_shown(value))
    return int(number)


def flatten(value: object, where: str) -> tuple[list[Any], tuple[int, ...]]:
    """The leaves of nested lists in order, and their shape (``()`` for a bare value); refused where ragged."""
    if not isinstance(value, list):
        return [value], ()
    parts = [flatten(item, where) for item in cast("list[object]", value)]
    if not parts:
        return [], (0,)
    if any(shape != parts[0][1] for _, shape in parts):
        raise EncodingsInvalid("is a ragged list", where=where)
    return [leaf for leaves, _ in parts for leaf in leaves], (len(parts), *parts[0][1])


def nest(flat: Sequence[Any], shape: Sequence[int]) -> Any:
    """Nested lists of that shape out of the leaves."""
    if not shape:
        return flat[0]
    step = len(flat) // shape[0] if shape[0] else 0
    return [nest(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def _shown(value: object) -> str:
    return repr(value)[:80]
