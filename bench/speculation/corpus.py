"""Texts that every Python has: its documentation, its library's sources, and edits of their functions; and tokens."""

from __future__ import annotations

import ast
import builtins
import keyword
import random
import re
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKEN = re.compile(r" ?[A-Z]?[a-z]{1,8}| ?[A-Z]{1,8}|\d{1,3}|\n[ \t]*|[ \t]+| ?_+| ?[^\w\s]{1,3}|.", re.DOTALL)
PROMPT = 300  # tokens before the ones that are generated
NEW = 212  # tokens of a text, the length of MT-bench's answers
LETTERS = "bcdfghklmnprstvz"
KEPT = frozenset((*keyword.kwlist, *keyword.softkwlist, *dir(builtins), "self", "cls"))


@dataclass(frozen=True)
class Sample:
    """A prompt, and what follows it."""

    prompt: list[int]
    rest: list[int]

    @property
    def tokens(self) -> list[int]:
        """Both."""
        return self.prompt + self.rest


class Tokenizer:
    """Words in pieces of at most eight letters, digits by three, punctuation: numbered as they come."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def encode(self, text: str) -> list[int]:
        """The numbers of a text's tokens."""
        return [self.numbers.setdefault(piece, len(self.numbers)) for piece in TOKEN.findall(text)]


def prose(tokenizer: Tokenizer, count: int) -> Iterator[Sample]:
    """The language reference, topic by topic."""
    from pydoc_data.topics import topics

    whole = tokenizer.encode("\n".join(topics[name] for name in sorted(topics)))
    yield from _cut(whole, count)


def code(tokenizer: Tokenizer, count: int) -> Iterator[Sample]:
    """Sources of the standard library."""
    files = [path for path in _sources() if path.stat().st_size > 12_000]
    for path in _spread(files, count):
        tokens = tokenizer.encode(path.read_text(encoding="utf-8", errors="replace"))
        yield from _cut(tokens, 1)


def edit(tokenizer: Tokenizer, count: int) -> Iterator[Sample]:
    """Functions of the library with some of their names changed: the function is the prompt, the edit what follows."""
    functions = [text for path in _sources() for text in _functions(path)]
    for number, text in enumerate(_spread(functions, count)):
        yield Sample(tokenizer.encode(text + "\n# edited:\n"), tokenizer.encode(renamed(text, number))[:NEW])


def renamed(text: str, seed: int) -> str:
    """The function with about one name in five replaced by a made-up one everywhere."""
    chance = random.Random(seed)  # noqa: S311  an edit, no secret
    names = sorted({node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)} - KEPT)
    new = {
        name: "".join(chance.choice(LETTERS) + chance.choice("aeiou") for _ in range(3))
        for name in names
        if chance.random() < 0.2
    }
    return re.sub(r"\b[A-Za-z_]\w*\b", lambda word: new.get(word[0], word[0]), text)


CORPORA: dict[str, Callable[[Tokenizer, int], Iterator[Sample]]] = {"prose": prose, "code": code, "edit": edit}


def _sources() -> list[Path]:
    library = Path(sysconfig.get_path("stdlib"))
    folders = ("", "asyncio", "collections", "concurrent", "email", "http", "importlib", "json", "logging", "unittest")
    return sorted(path for folder in folders for path in (library / folder).glob("*.py"))


def _functions(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    for node in ast.parse(text).body:
        source = ast.get_source_segment(text, node) if isinstance(node, ast.FunctionDef) else None
        if source is not None and 1_000 < len(source) < 4_000:
            yield source


def _cut(tokens: list[int], count: int) -> Iterator[Sample]:
    """``count`` pieces from all over a text."""
    size = PROMPT + NEW
    last = len(tokens) - size
    for at in range(count):
        start = last * (2 * at + 1) // (2 * count)
        yield Sample(tokens[start : start + PROMPT], tokens[start + PROMPT : start + size])


def _spread(items: list[Any], count: int) -> list[Any]:
    return [items[len(items) * at // count] for at in range(min(count, len(items)))]
