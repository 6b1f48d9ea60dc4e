"""Reading JSON that may be hostile: bounded, nothing twice, no NaN or overflow, the line where it is wrong."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, cast

from .base import EncodingsInvalid

MAX_BYTES = 64 << 20
MAX_INT = 1 << 53
MAX_SHOWN = 16  # names that a message repeats


def read_text(path: Path) -> str:
    """The text of a file; EncodingsInvalid where it is missing, too large or no UTF-8."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise EncodingsInvalid(
                "is too large for encodings", where=str(path), found=f"{size} bytes", wanted=f"≤ {MAX_BYTES}"
            )
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise EncodingsInvalid("no such file", where=str(path), wanted="a file of encodings") from None
    except (OSError, UnicodeDecodeError) as error:
        raise EncodingsInvalid("cannot be read", where=str(path), found=str(error)[:160]) from None


def load_json(text: str, *, where: str) -> Any:
    """The value that ``text`` holds; EncodingsInvalid for a key that stands twice, NaN, a number beyond a double."""
    if len(text) > MAX_BYTES:
        raise EncodingsInvalid("is too large for encodings", where=where, wanted=f"≤ {MAX_BYTES} characters")

    def refuse(token: str) -> NoReturn:
        raise EncodingsInvalid(f"{token} is no number", where=f"{where}, line {_line_of(text, token)}")

    def number(token: str) -> float:
        value = float(token)
        return value if math.isfinite(value) else refuse(token)

    def whole(token: str) -> int:
        return int(token) if len(token) < 20 else refuse(token)

    try:
        return json.loads(
            text, object_pairs_hook=_unique(text, where), parse_constant=refuse, parse_float=number, parse_int=whole
        )
    except json.JSONDecodeError as error:
        raise EncodingsInvalid("is no JSON", where=f"{where}, line {error.lineno}", found=error.msg) from None
    except RecursionError:
        raise EncodingsInvalid("is nested without end", where=where) from None


def _unique(text: str, where: str) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            first = text.find(json.dumps(twice, ensure_ascii=False))
            at = text.find(json.dumps(twice, ensure_ascii=False), first + 1)
            line = text.count("\n", 0, max(at, 0)) + 1
            raise EncodingsInvalid(f"{twice[:80]!r} stands twice", where=f"{where}, line {line}")
        return found

    return build


def _line_of(text: str, token: str) -> int:
    return text.count("\n", 0, max(text.find(token), 0)) + 1


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
