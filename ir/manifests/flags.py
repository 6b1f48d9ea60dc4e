"""Flags of the user's for a target's compiler are put behind those of the manifest, which it keeps to itself."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..core.errors import UsageError
from .base import Command
from .deployment import deployment_of


@dataclass(frozen=True)
class Flagged:
    """Commands with the flags that were asked for, and a sentence for each that their programs are not known by."""

    commands: tuple[Command, ...]
    warnings: tuple[str, ...] = ()


def with_flags(target: str, commands: Sequence[Command], text: str, *, where: str) -> Flagged:
    """``commands`` of a target with the flags of ``text``, each at the programs that have it.

    A flag that none of them is known to have goes to all, with a warning. UsageError for a word that is no flag, and
    for a flag of the manifest's own with another value.
    """
    flags = list(_flags(text, where))
    if flags and not commands:
        raise UsageError(f"target {target!r} calls no compiler", where=where, found=text)
    known = deployment_of(target).flags
    unknown = [flag for flag in flags if not any(_name(flag) in names for names in known.values())]
    result: list[Command] = []
    for command in commands:
        own = known.get(command.program, frozenset[str]())
        mine = [flag for flag in flags if flag in unknown or _name(flag) in own]
        result.append(replace(command, arguments=(*command.arguments, *_new(mine, command, where))))
    every = sorted({name for names in known.values() for name in names})
    return Flagged(tuple(result), tuple(_warning(flag, every, commands) for flag in unknown))


def _flags(text: str, where: str) -> Iterator[str]:
    """The flags of a command line, each with the values behind it."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"are not as a shell reads them: {error}", where=where, found=text) from None
    flag: list[str] = []
    for word in words:
        if word.startswith("-") and not _number(word):
            if flag:
                yield " ".join(flag)
            flag = [word]
        elif not flag:
            raise UsageError("is no flag", where=where, found=word, wanted="-name or -name=value")
        else:
            flag.append(word)
    if flag:
        yield " ".join(flag)


def _number(word: str) -> bool:
    return word[1:].replace(".", "", 1).isdigit()


def _name(flag: str) -> str:
    return flag.split("=", 1)[0].split(" ", 1)[0]


def _new(flags: Sequence[str], command: Command, where: str) -> Iterator[str]:
    """The arguments of flags that the command does not have; UsageError where it has one with another value."""
    own = {_name(argument): argument for argument in command.arguments if argument.startswith("-")}
    for flag in flags:
        if _name(flag) not in own:
            yield from flag.split(" ") if " " in flag else (flag,)
        elif own[_name(flag)] != flag:
            raise UsageError(
                "is written by the manifest itself", where=where, found=flag, wanted=own[_name(flag)],
                hint="Leave it out.",
            )  # fmt: skip


def _warning(flag: str, known: Sequence[str], commands: Sequence[Command]) -> str:
    near = difflib.get_close_matches(_name(flag), known, n=1, cutoff=0.6)
    guess = f" (did you mean {near[0]}?)" if near else ""
    programs = ", ".join(dict.fromkeys(command.program for command in commands))
    return f"{_name(flag)} is no flag of {programs} that is known here{guess}: passed on as it is"
