"""Cases of manifests that another tool answered are read from a file and judged against our own functions."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ...ir.core.errors import InputError, OnnxPassesError
from ...ir.serialization.strict import StrictReader

MAX_DIGITS = 18  # of a size
MAX_CASES = 100_000
READER = StrictReader("conformance cases", InputError, max_bytes=256 << 20)

Case = Mapping[str, Any]
Answer = tuple[object, object]  # ours, and what the case says


class Outcome(enum.Enum):
    """How a case ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_BUILT = "not built"


@dataclass(frozen=True)
class Form:
    """One shape of a case: the keys it must have, the functions it asks, how to ask them, and what else it shows."""

    keys: tuple[str, ...]
    functions: str
    ask: Callable[[Case], Answer]
    optional: tuple[str, ...] = ()
    fits: Callable[[Case], bool] | None = None

    def takes(self, case: Case) -> bool:
        """Whether a case has this shape."""
        return all(key in case for key in self.keys) and (self.fits is None or self.fits(case))


@dataclass(frozen=True)
class Section:
    """A section of the cases: its number, what it is about, and the shapes its cases have; none where not built yet."""

    number: str
    title: str
    forms: tuple[Form, ...] = ()


@dataclass(frozen=True)
class Result:
    """One case: where it stands, how it ended, and why where it did not pass."""

    line: int
    section: str
    label: str
    outcome: Outcome
    known_bug: bool = False
    reason: str = ""


def read_cases(path: Path) -> list[tuple[int, str, Case]]:
    """(line, section, case) of each line; InputError names the line that is no case."""
    lines = READER.read_text(path).splitlines()
    found = [_case(line, f"{path}, line {number}", number) for number, line in enumerate(lines, 1) if line.strip()]
    if not found or len(found) > MAX_CASES:
        raise InputError("holds no cases, or too many", where=str(path), found=len(found), wanted=f"1 to {MAX_CASES}")
    return found


def _case(line: str, where: str, number: int) -> tuple[int, str, Case]:
    data = READER.load_json(line, where=where)
    fields = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    section, case = fields.get("section"), fields.get("case")
    if not isinstance(section, str) or not isinstance(case, dict):
        raise InputError("is no case", where=where, wanted='{"section": "…", "case": {…}}')
    return number, section, cast("Case", case)


def numbers(given: Any) -> Any:
    """``given`` with sizes that are told as text as the integers that they say, in lists and mappings too."""
    if isinstance(given, Mapping):
        return {key: numbers(value) for key, value in cast("Mapping[str, Any]", given).items()}
    if isinstance(given, list):
        return [numbers(item) for item in cast("list[Any]", given)]
    plain = isinstance(given, str) and given.isascii() and given.isdigit() and len(given) <= MAX_DIGITS
    return int(given) if plain else given


def judge(form: Form, case: Case) -> str:
    """Why the case does not pass, empty where it does.

    A case that raises passes where we refuse; one that records a known bug where we refuse or answer otherwise; any
    other where our answer is the recorded one.
    """
    known_bug = case.get("B") is True
    try:
        ours, recorded = form.ask(case)
    except OnnxPassesError as refusal:
        return "" if known_bug or "raises" in case else f"refused: {refusal}"
    if "raises" in case and not known_bug and recorded is not REFUSALS:
        return f"not refused, though the case raises {case['raises']}: {_short(ours)}"
    if known_bug:
        return f"the known bug is repeated: {_short(ours)}" if _same(ours, recorded) else ""
    return "" if _same(ours, recorded) else f"{_short(ours)} is not {_short(recorded)}"


class _Refusals:
    """Stands for a case that lists several inputs, each of which must be refused; our answer is those that were not."""


REFUSALS = _Refusals()


def _same(ours: object, recorded: object) -> bool:
    return ours == [] if recorded is REFUSALS else _plain(ours) == _plain(recorded)


def _plain(item: object) -> object:
    """Tuples as lists, and bools apart from the integers that Python finds equal to them."""
    if isinstance(item, Mapping):
        return {key: _plain(value) for key, value in cast("Mapping[object, object]", item).items()}
    if isinstance(item, list | tuple):
        return [_plain(part) for part in cast("list[object]", item)]
    return ("bool", item) if isinstance(item, bool) else item


def _short(item: object) -> str:
    text = repr(item)
    return text if len(text) <= 300 else text[:297] + " …"
