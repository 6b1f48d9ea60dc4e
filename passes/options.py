"""The fields of a pass's dataclass are its options, converted from and to text by their type hints."""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, cast

from ..ir.core.errors import UnknownNameError, UsageError
from .syntax import Atom, Item, Value, print_value

Hint = Any  # a type hint at run time has no type of its own

MAX_SHOWN = 200  # characters of a bad value that its message repeats
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_BOOLEANS = {"true": True, "false": False}


@dataclasses.dataclass(frozen=True)
class Option:
    """One option as a person sees it: its name, the value wanted, and the default as it would be written."""

    name: str
    wanted: str
    default: str | None


def options_of(cls: type) -> list[Option]:
    """The options of a pass class in the order of its fields; ``default`` is None where the option must be given."""
    hints = _hints(cls)
    return [
        Option(option_name(field.name), describe(hints[field.name]), _default_text(field)) for field in _fields(cls)
    ]


def option_name(field_name: str) -> str:
    """A field's name in pipeline text: a trailing underscore (``as_``) only keeps Python content."""
    return field_name.rstrip("_")


def parse_options(cls: type, options: Mapping[str, Value], *, where: str) -> dict[str, object]:
    """Keyword arguments for ``cls`` out of the written options.

    Raises UsageError for an option that is unknown, missing, or whose value is not what its type hint wants.
    """
    by_name = {option_name(field.name): field for field in _fields(cls)}
    hints = _hints(cls)
    for name in options:
        if name not in by_name:
            raise _unknown_option(name, list(by_name), where)
    for name, field in by_name.items():
        if name not in options and not _has_default(field):
            raise UsageError(f"option {name!r} must be given", where=where, wanted=describe(hints[field.name]))
    return {
        by_name[name].name: parse_value(value, hints[by_name[name].name], where=f"{where}, option {name!r}")
        for name, value in options.items()
    }


def print_options(instance: object) -> tuple[tuple[str, Value], ...]:
    """The options of a pass that differ from their defaults, ready to be written."""
    return tuple(
        (option_name(field.name), to_value(getattr(instance, field.name)))
        for field in _fields(type(instance))
        if not _has_default(field) or getattr(instance, field.name) != _default(field)
    )


def parse_value(value: Value, hint: Hint, *, where: str) -> object:
    """Converts one written value by its type hint; raises UsageError naming what was found and wanted."""
    try:
        return _convert(value, hint)
    except _UnfitError as unfit:
        found = print_value(value)[:MAX_SHOWN] or "nothing"
        raise UsageError("bad value", where=where, found=found, wanted=describe(hint), hint=str(unfit)) from None


def to_value(thing: object) -> Value:
    """Writes a Python value: a tuple as items, a pair or mapping entry as atoms joined by a colon."""
    if isinstance(thing, Mapping):
        return tuple(_to_item(pair) for pair in cast("Mapping[object, object]", thing).items())
    if isinstance(thing, tuple):
        return tuple(_to_item(item) for item in cast("tuple[object, ...]", thing))
    return (_to_item(thing),)


def _to_item(thing: object) -> Item:
    if isinstance(thing, tuple):
        return tuple(_to_atom(part) for part in cast("tuple[object, ...]", thing))
    return (_to_atom(thing),)


def _to_atom(thing: object) -> Atom:
    if thing is None:
        return Atom("none")
    if isinstance(thing, bool):
        return Atom(str(thing).lower())
    if isinstance(thing, enum.Enum):
        return Atom(str(thing.value))
    text = repr(thing) if isinstance(thing, float) else str(thing)
    return Atom(text, quoted=text == "none")


class _UnfitError(Exception):
    """A value that its hint does not take; the text is a hint for the person, or empty."""


def _convert(value: Value, hint: Hint) -> object:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return tuple(_convert_item(item, arguments[0]) for item in value)
    if origin is tuple:
        return _convert_fixed(value, arguments)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _convert_mapping(value, arguments)
    if len(value) != 1:
        raise _UnfitError("Quote a value that holds a comma" if value else "")
    return _convert_item(value[0], hint)


def _convert_union(value: Value, members: tuple[Hint, ...]) -> object:
    if type(None) in members and value == ((Atom("none"),),):
        return None
    for member in members:
        if member is type(None):
            continue
        try:
            return _convert(value, member)
        except _UnfitError:
            continue
    raise _UnfitError("")


def _convert_fixed(value: Value, hints: tuple[Hint, ...]) -> object:
    if len(value) != len(hints):
        raise _UnfitError("")
    return tuple(_convert_item(item, hint) for item, hint in zip(value, hints, strict=True))


def _convert_mapping(value: Value, hints: tuple[Hint, ...]) -> object:
    result: dict[object, object] = {}
    for item in value:
        key, content = _convert_pair(item, hints)
        if key in result:
            raise _UnfitError(f"{key!r} stands twice")
        result[key] = content
    return result


def _convert_item(item: Item, hint: Hint) -> object:
    if typing.get_origin(hint) is tuple:
        return _convert_pair(item, typing.get_args(hint))
    if len(item) != 1:
        raise _UnfitError("Quote a value that holds a colon")
    return _convert_atom(item[0], hint)


def _convert_pair(item: Item, hints: tuple[Hint, ...]) -> tuple[Any, ...]:
    if len(item) != len(hints):
        raise _UnfitError("A name that holds a colon needs quotes" if len(item) > len(hints) else "")
    return tuple(_convert_atom(atom, hint) for atom, hint in zip(item, hints, strict=True))


def _convert_atom(atom: Atom, hint: Hint) -> object:
    if typing.get_origin(hint) is Literal:
        return _choice(atom, {str(choice): choice for choice in typing.get_args(hint)})
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _choice(atom, {str(member.value): member for member in hint})
    if hint not in _SCALARS:
        raise TypeError(f"an option cannot have the type {hint!r}")
    return _SCALARS[hint][0](atom)


def _choice(atom: Atom, choices: Mapping[str, object]) -> object:
    if atom.text not in choices:
        raise _UnfitError("")
    return choices[atom.text]


def _integer(atom: Atom) -> int:
    if not _INTEGER.fullmatch(atom.text):
        raise _UnfitError("")
    return int(atom.text)


def _number(atom: Atom) -> float:
    try:
        number = float(atom.text)
    except ValueError:
        raise _UnfitError("") from None
    if math.isnan(number):
        raise _UnfitError("")
    return number


def _path(atom: Atom) -> Path:
    if not atom.text or "\0" in atom.text:
        raise _UnfitError("")
    return Path(atom.text)


_SCALARS: dict[Hint, tuple[Callable[[Atom], object], str, str]] = {
    bool: (lambda atom: _choice(atom, _BOOLEANS), "true or false", "true or false"),
    int: (_integer, "an integer", "integers"),
    float: (_number, "a number", "numbers"),
    str: (lambda atom: atom.text, "a text", "texts"),
    Path: (_path, "a path", "paths"),
}


def describe(hint: Hint, *, many: bool = False) -> str:
    """What a type hint takes, in words: ``an integer``, ``one of ordered, any``, ``texts separated by commas``."""
    arguments = typing.get_args(hint)
    if arguments:
        return _describe_generic(typing.get_origin(hint), arguments, many)
    if hint in _SCALARS:
        _, one, several = _SCALARS[hint]
        return several if many else one
    members = cast("type[enum.Enum]", hint)
    return f"one of {', '.join(str(member.value) for member in members)}"


def _describe_generic(origin: Hint, arguments: tuple[Hint, ...], many: bool) -> str:
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (Union, types.UnionType):
        return " or ".join("none" if member is type(None) else describe(member) for member in arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"{describe(arguments[0], many=True)} separated by commas"
    words = [_short(argument) for argument in arguments]
    if origin is tuple:
        return f"pairs {':'.join(words)}" if many else ",".join(words)
    return f"pairs {':'.join(words)} separated by commas"


def _short(hint: Hint) -> str:
    return describe(hint).removeprefix("a ").removeprefix("an ")


def _unknown_option(name: str, known: list[str], where: str) -> UsageError:
    hint = f"Its options are {', '.join(known)}." if known else "It has no options."
    return UnknownNameError("option", name, known, where=where, hint=hint)


def _fields(cls: type) -> tuple[dataclasses.Field[Any], ...]:
    return tuple(field for field in dataclasses.fields(cls) if field.init) if dataclasses.is_dataclass(cls) else ()


@functools.cache
def _hints(cls: type) -> dict[str, Hint]:
    return typing.get_type_hints(cls)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _default(field: dataclasses.Field[Any]) -> object:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _default_text(field: dataclasses.Field[Any]) -> str | None:
    return print_value(to_value(_default(field))) if _has_default(field) else None
