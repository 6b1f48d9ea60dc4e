"""Every error says what happened, where, what was found, what was wanted, and the next step; this is their one tree."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OnnxPassesError(Exception):
    """Anything this package reports to a person; ``str()`` is one line without a traceback's help.

    ``what`` is the sentence; the keyword arguments are appended to it in a fixed order, empty ones left out.
    ``exit_code`` is what the command returns: 1 for a refused or failed job, 2 for the caller's mistake.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        found: object = None,
        wanted: object = None,
        hint: str = "",
    ) -> None:
        self.what = what
        self.where = where
        self.found = found
        self.wanted = wanted
        self.hint = hint
        super().__init__(self._line())

    def _line(self) -> str:
        parts = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.found is not None:
            parts.append(f"found {self.found}")
        if self.wanted is not None:
            parts.append(f"wanted {self.wanted}")
        line = "; ".join(part.rstrip(".") for part in parts)
        if self.hint:
            line = f"{line}. {self.hint}"
        return shortened(" ".join(line.split()), MAX_LINE)


MAX_LINE = 3000  # characters of an error: the longest of ours have some 1,500
MAX_WORD = 300  # characters of one name in it


def shortened(text: str, most: int = MAX_WORD) -> str:
    """``text`` without its middle where it is longer than ``most`` characters: a file may name a node by megabytes."""
    if len(text) <= MAX_WORD:
        return text
    words = [word if len(word) <= MAX_WORD else _elided(word, MAX_WORD) for word in text.split(" ")]
    return _elided(" ".join(words), most)


def _elided(text: str, most: int) -> str:
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]} … {text[-half:]}"


class UsageError(OnnxPassesError):
    """The caller's mistake: a wrong name, option, or value."""

    exit_code = 2


def expect(kind: type | tuple[type, ...], given: object, call: str, hint: str) -> None:
    """Raises UsageError where a public function is given another type than it takes; ``hint`` says how to get one."""
    if not isinstance(given, kind):
        name = f"{type(given).__module__.partition('.')[0]}.{type(given).__name__}".removeprefix("builtins.")
        wanted = " or ".join(one.__qualname__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise UsageError(f"{call} takes another type", found=name, wanted=wanted, hint=hint)


ONE_GRAPH = "A program's graphs: program.graph(name); of a ModelProto: onnx_ir.from_proto(proto)."
FEW = 12  # so many names fit into one line of an error


class UnknownNameError(UsageError):
    """A name that nothing answers to; proposes the nearest ones, else lists all where they are few."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str = "", hint: str = "") -> None:
        names = list(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        self.suggestions = near
        guess = f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        if not near and not hint and 0 < len(names) <= FEW:
            guess = f"Known: {', '.join(names)}."
        super().__init__(f"unknown {kind} {name!r}", where=where, hint=" ".join(x for x in (guess, hint) if x))


class InputError(UsageError):
    """A file that cannot be read as what it should be: missing, not ONNX, truncated, weights missing or escaping."""


class OutputError(UsageError):
    """An output place that must not be written to as asked."""


class WriteError(OnnxPassesError):
    """Writing failed on the machine's side: disk full, no permission, the source changed meanwhile."""


class PassRefused(OnnxPassesError):
    """A pass that cannot be exact here, and therefore changed nothing."""


class ProgramInvalid(OnnxPassesError):
    """A graph that breaks a rule every graph must keep (dangling name, missing type, unpaired state)."""


class NotEqualError(OnnxPassesError):
    """Verification found two graphs that do not compute the same."""
