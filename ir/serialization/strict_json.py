"""JSON that may be hostile is parsed within limits; what breaks a rule is found again with its line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, cast

MAX_DEPTH = 64
MAX_DIGITS = 39  # of a whole number: 128 bits
_CONTAINERS = frozenset((dict, list))
# A string, a bracket, or a bare word (a number, a constant): strings are whole, so that nothing inside one is a token.
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]|[^\s{}\[\],:"]+', re.DOTALL)


class BrokenText(Exception):
    """A text that breaks a rule: what, on which line, and what was found and wanted there."""

    def __init__(self, what: str, line: int, *, found: object = None, wanted: object = None) -> None:
        self.what, self.line, self.found, self.wanted = what, line, found, wanted
        super().__init__(what)


class _DoubledKeyError(Exception):
    """A key stands twice in one object."""


def parse_json(text: str) -> Any:
    """The value that ``text`` holds.

    Raises:
        BrokenText: no JSON, a key twice in one object, NaN, a number beyond a double or 128 bits, too many levels.
    """
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse(text), parse_float=_number(text),
            parse_int=_whole(text),
        )  # fmt: skip
    except json.JSONDecodeError as error:
        raise BrokenText("is no JSON", error.lineno, found=error.msg) from None
    except _DoubledKeyError:
        key, line = _doubled_key(text)
        raise BrokenText(f"{key[:80]!r} stands twice", line) from None
    except RecursionError:
        raise _too_deep(text) from None
    if _is_deep(value):
        raise _too_deep(text)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _DoubledKeyError
    return found


def _refuse(text: str) -> Callable[[str], NoReturn]:
    def refuse(token: str) -> NoReturn:
        line, item = _place(text, token)
        raise BrokenText(f"{token[:80]} is no number", line, found=item, wanted="a finite number of at most 128 bits")

    return refuse


def _place(text: str, token: str) -> tuple[int, str | None]:
    """The line of a token, and the key that it stands under, with the last name before it."""
    key = name = ""
    for line, found in _tokens(text):
        if found == token:
            named = f" of {name[:80]}" if name else ""
            return line, f"{key[:80]}{named}" if key else None
        if found.endswith(":"):
            key = found[:-1].rstrip()
        elif key == '"name"' and found.startswith('"'):
            name = found
    return 1, None


def _number(text: str) -> Callable[[str], float]:
    refuse = _refuse(text)

    def number(token: str) -> float:
        value = float(token)
        return value if math.isfinite(value) else refuse(token)

    return number


def _whole(text: str) -> Callable[[str], int]:
    refuse = _refuse(text)

    def whole(token: str) -> int:
        return int(token) if len(token.lstrip("-")) <= MAX_DIGITS else refuse(token)

    return whole


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node) if type(child) in _CONTAINERS]
        if not level:
            return False
    return True


def _children(node: object) -> Iterable[object]:
    if isinstance(node, dict):
        return cast("dict[str, object]", node).values()
    return cast("list[object]", node) if isinstance(node, list) else ()


def _too_deep(text: str) -> BrokenText:
    depth, line = 0, 1
    for line, token in _tokens(text):  # noqa: B007  the line on which the limit is passed
        depth += (token in "[{") - (token in "]}")
        if depth > MAX_DEPTH:
            break
    return BrokenText("is nested without end", line, wanted=f"at most {MAX_DEPTH} levels")


def _doubled_key(text: str) -> tuple[str, int]:
    """The first key that stands twice in one object, and the line of its second place."""
    seen: list[set[str]] = []
    for line, token in _tokens(text):
        if token in "[{":
            seen.append(set())
        elif token in "]}":
            seen.pop()
        elif token.startswith('"') and token.endswith(":"):
            key = json.loads(token[:-1])
            if key in seen[-1]:
                return key, line
            seen[-1].add(key)
    return "a key", 1


def _tokens(text: str) -> Iterator[tuple[int, str]]:
    """Each token with its line; a string that is a key ends with its colon."""
    line, last = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", last, match.start())
        last = match.start()
        is_key = match[0].startswith('"') and text[match.end() : match.end() + 64].lstrip().startswith(":")
        yield line, f"{match[0]}:" if is_key else match[0]
