"""Reads texts and pairs of texts, and puts them into a template."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...ir.core.errors import InputError

MAX_BYTES = 1 << 30
QUERY, DOCUMENT, TEXT = "{query}", "{document}", "{text}"


@dataclass(frozen=True)
class Item:
    """One text, or a pair; ``after`` and ``before`` are what a template puts around ``text``, which may be cut."""

    text: str
    pair: str | None = None
    before: str = ""
    after: str = ""

    @property
    def templated(self) -> bool:
        """True where something stands around the text."""
        return bool(self.before or self.after)


def read_texts(path: Path, template: str | None = None) -> list[Item]:
    """One text a line, or a JSON string or ``{"text": …}`` a line of a .jsonl file; InputError names the line."""
    return _texts(_lines(path), template)


def items_of(texts: Iterable[str], template: str | None = None) -> list[Item]:
    """The same of texts in memory; InputError names the one that is none."""
    return _texts(((f"text {number}", text) for number, text in enumerate(texts)), template)


def _texts(found: Iterable[tuple[str, Any]], template: str | None) -> list[Item]:
    items = [_text(entry, where) for where, entry in found]
    if template is None:
        return items
    before, after = _split(template, TEXT)
    return [Item(item.text, before=before, after=after) for item in items]


def read_pairs(path: Path, template: str | None = None) -> list[Item]:
    """``{"query": …, "document": …}`` or ``[query, document]`` a line of a .jsonl file; else two columns and a tab."""
    return _pairs(_lines(path), template)


def pair_items(pairs: Iterable[Sequence[str]], template: str | None = None) -> list[Item]:
    """The same of queries and documents in memory; InputError names the one that is no pair."""
    return _pairs(((f"pair {number}", pair) for number, pair in enumerate(pairs)), template)


def _pairs(found: Iterable[tuple[str, Any]], template: str | None) -> list[Item]:
    items = [_pair(entry, where) for where, entry in found]
    if template is None:
        return items
    before, after = _split(template, DOCUMENT)
    return [
        Item(item.pair or "", before=before.replace(QUERY, item.text), after=after.replace(QUERY, item.text))
        for item in items
    ]


def read_template(path: Path) -> str:
    """The text of a template, its last line feed taken off."""
    return _read(path).removesuffix("\n")


def _split(template: str, place: str) -> tuple[str, str]:
    before, found, after = template.partition(place)
    if not found:
        raise InputError("the template has no place for the text", found=template[:80], wanted=place)
    return before, after


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    lines = _read(path).split("\n")
    if lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise InputError("holds no text", where=str(path))
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        if path.suffix != ".jsonl":
            yield where, line.split("\t") if "\t" in line else line
            continue
        try:
            yield where, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError("is no JSON", where=where, found=str(error)[:120]) from None


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError("is too large for texts", where=str(path), wanted=f"at most {MAX_BYTES} bytes")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError("no such file", where=str(path), wanted="texts") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot be read as text", where=str(path), found=str(error)[:160]) from None


def _text(found: Any, where: str) -> Item:
    if isinstance(found, list) and where and all(isinstance(part, str) for part in found):
        found = "\t".join(found)
    if isinstance(found, dict):
        found = found.get("text")
    if not isinstance(found, str):
        raise InputError("is no text", where=where, found=repr(found)[:80], wanted='a string, or {"text": …}')
    if not found.strip():
        raise InputError("is an empty text", where=where, hint="Leave the line out: an empty text has no vector.")
    return Item(found)


def _pair(found: Any, where: str) -> Item:
    parts: Sequence[Any] = (found.get("query"), found.get("document")) if isinstance(found, dict) else found
    if isinstance(parts, str) or not isinstance(parts, list | tuple) or len(parts) != 2:
        parts = (None, None)
    query, document = parts
    if not (isinstance(query, str) and isinstance(document, str)):
        wanted = '{"query": …, "document": …}, or two columns with a tab between'
        raise InputError("is no pair of texts", where=where, found=repr(found)[:80], wanted=wanted)
    if not query.strip() or not document.strip():
        raise InputError("has an empty text", where=where, hint="Leave the line out: an empty text has no score.")
    return Item(query, document)
