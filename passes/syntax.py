"""Pipeline text becomes plain data and text again, knowing no pass: `a,b{x=1 y=2,3 map=old:new s="any text"},c`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..ir.core.errors import UsageError

MAX_TEXT = 1_000_000  # characters; a rename map of every state of a 126-layer model is about 30,000
MAX_PASSES = 1_000
MAX_NAME = 200

_TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<quoted>"(?:[^"\\]|\\["\\])*")|(?P<mark>[,:{}=])|(?P<bare>[^\s,:{}="]+)""", re.DOTALL
)
_PLAIN = re.compile(r"""[^\s,:{}="\\]+""")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True)
class Atom:
    """One word of a value; ``quoted`` tells ``"none"`` (text) from ``none`` (nothing)."""

    text: str
    quoted: bool = False

    def __str__(self) -> str:
        if not self.quoted and _PLAIN.fullmatch(self.text):
            return self.text
        escaped = self.text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'


Item = tuple[Atom, ...]  # atoms joined by colons
Value = tuple[Item, ...]  # items joined by commas


@dataclass(frozen=True)
class PassSpec:
    """One pass as written: its name and its options in order, values not yet converted."""

    name: str
    options: tuple[tuple[str, Value], ...] = ()

    def __str__(self) -> str:
        if not self.options:
            return self.name
        return f"{self.name}{{{' '.join(f'{key}={print_value(value)}' for key, value in self.options)}}}"


def print_value(value: Value) -> str:
    """Writes a value as it stands after the equals sign."""
    return ",".join(":".join(str(atom) for atom in item) for item in value)


def print_specs(specs: Sequence[PassSpec]) -> str:
    """Writes specs as one line of pipeline text."""
    return ",".join(str(spec) for spec in specs)


def parse_specs(text: str) -> list[PassSpec]:
    """Reads pipeline text; raises UsageError with the place of the first thing that does not fit."""
    if len(text) > MAX_TEXT:
        raise UsageError("the pipeline text is too long", found=f"{len(text)} characters", wanted=f"at most {MAX_TEXT}")
    reader = _Reader(text)
    specs = [_read_pass(reader)]
    while reader.take(","):
        specs.append(_read_pass(reader))
        if len(specs) > MAX_PASSES:
            raise UsageError("the pipeline has too many passes", wanted=f"at most {MAX_PASSES}")
    if reader.kind != "end":
        raise reader.error("a comma before the next pass, or the end")
    return specs


class _Reader:
    """The text, and the token that comes next; spaces are tokens only inside braces."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        self.kind = ""
        self.token = ""
        self.step()

    def step(self) -> None:
        """Moves to the next token."""
        self.place += len(self.token)
        match = _TOKEN.match(self.text, self.place)
        if match is not None:
            self.kind, self.token = str(match.lastgroup), match.group()
        elif self.place == len(self.text):
            self.kind, self.token = "end", ""
        else:
            raise self.error('a closing quote; inside quotes write \\" for a quote and \\\\ for a backslash')

    def take(self, mark: str) -> bool:
        """Steps over ``mark`` if it comes next."""
        if self.kind != "mark" or self.token != mark:
            return False
        self.step()
        return True

    def skip_space(self) -> bool:
        """Steps over spaces, says whether there were any."""
        if self.kind != "space":
            return False
        self.step()
        return True

    def error(self, wanted: str) -> UsageError:
        """What was found here, and what was wanted."""
        rest = self.text[self.place : self.place + 20]
        found = repr(rest) if rest else "the end of the text"
        return UsageError(
            f"the pipeline text cannot be read at character {self.place + 1}",
            found=found,
            wanted=wanted,
            hint='It looks like this: a,b{x=1 y=2,3 map=old:new s="any text"},c',
        )


def _read_pass(reader: _Reader) -> PassSpec:
    reader.skip_space()
    name = _read_name(reader, "the name of a pass")
    reader.skip_space()
    options = _read_options(reader) if reader.take("{") else ()
    reader.skip_space()
    return PassSpec(name, options)


def _read_name(reader: _Reader, wanted: str) -> str:
    if reader.kind != "bare":
        raise reader.error(wanted)
    name = reader.token
    if len(name) > MAX_NAME:
        raise UsageError("a name is too long", found=f"{name[:20]}…", wanted=f"at most {MAX_NAME} characters")
    reader.step()
    return name


def _read_options(reader: _Reader) -> tuple[tuple[str, Value], ...]:
    options: dict[str, Value] = {}
    spaced = True
    reader.skip_space()
    while not reader.take("}"):
        if not spaced:
            raise reader.error("a space before the next option, or }")
        start = reader.place
        name = _read_name(reader, "the name of an option, or }")
        if name in options:
            raise UsageError(f"option {name!r} stands twice in one pass, the second time at character {start + 1}")
        if not reader.take("="):
            raise reader.error(f"= after the option {name!r}")
        options[name] = _read_value(reader)
        spaced = reader.skip_space()
    return tuple(options.items())


def _read_value(reader: _Reader) -> Value:
    if reader.kind in ("space", "end") or (reader.kind, reader.token) == ("mark", "}"):
        return ()
    items = [_read_item(reader)]
    while reader.take(","):
        items.append(_read_item(reader))
    return tuple(items)


def _read_item(reader: _Reader) -> Item:
    atoms = [_read_atom(reader)]
    while reader.take(":"):
        atoms.append(_read_atom(reader))
    return tuple(atoms)


def _read_atom(reader: _Reader) -> Atom:
    if reader.kind not in ("bare", "quoted"):
        raise reader.error('a value; put it in quotes where it holds a space or any of , : { } = "')
    kind, token = reader.kind, reader.token
    reader.step()
    if kind == "bare":
        return Atom(token)
    return Atom(_ESCAPED.sub(r"\1", token[1:-1]), quoted=True)
