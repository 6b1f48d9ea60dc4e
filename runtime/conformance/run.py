"""Runs the cases: which section and which form answers each, and what becomes of the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cases import Case, Form, Outcome, Result, Section, judge, read_cases
from .sections import ANYWHERE, SECTIONS


@dataclass(frozen=True)
class Conformance:
    """All results, in the order of the file."""

    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        """Whether no case failed; cases of sections that are not built yet are counted apart and fail nothing."""
        return all(result.outcome is not Outcome.FAILED for result in self.results)

    def rows(self) -> list[tuple[str, Counter[Outcome]]]:
        """Each section as the file spells it, with how many of its cases ended how."""
        counts: dict[str, Counter[Outcome]] = {}
        for result in self.results:
            counts.setdefault(result.section, Counter())[result.outcome] += 1
        return list(counts.items())

    def to_dict(self) -> dict[str, Any]:
        """The results as JSON knows them."""
        totals = Counter(result.outcome for result in self.results)
        return {
            "passed": self.passed,
            "cases": len(self.results),
            "totals": {outcome.value: totals[outcome] for outcome in Outcome},
            "sections": [
                {"section": name, **{outcome.value: counts[outcome] for outcome in Outcome}}
                for name, counts in self.rows()
            ],
            "failures": [
                {"line": r.line, "section": r.section, "case": r.label, "known_bug": r.known_bug, "reason": r.reason}
                for r in self.results
                if r.outcome is Outcome.FAILED
            ],
        }


def run_cases(path: Path, more: Sequence[Section] = ()) -> Conformance:
    """Reads and judges every case of a JSON-lines file; InputError where the file is none.

    ``more`` are sections that a higher floor answers; each stands before the one of its number here.
    """
    return Conformance(tuple(run_case(*found, more) for found in read_cases(path)))


def run_case(line: int, section: str, case: Case, more: Sequence[Section] = ()) -> Result:
    """Judges one case."""
    label, bug = _label(case), case.get("B") is True
    form = _form(section, case, (*more, *SECTIONS))
    if form is None:
        return Result(line, section, label, Outcome.NOT_BUILT, bug, "no function answers such a case")
    try:
        reason = judge(form, case)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:  # a case of a shape nobody knows
        reason = f"the case cannot be read: {type(error).__name__}: {error}"
    return Result(line, section, label, Outcome.FAILED if reason else Outcome.PASSED, bug, reason)


def _form(section: str, case: Case, sections: Sequence[Section]) -> Form | None:
    """The form of the case's own section, else one that a case of any section may have; None where not built."""
    number = section.split(" ", maxsplit=1)[0].rstrip(".")
    own = next((s.forms for s in sections if s.number == number), ())
    return next((form for form in (*own, *ANYWHERE) if form.takes(case)), None)


def _label(case: Case) -> str:
    for key in ("id", "variant", "node"):
        if isinstance(case.get(key), str):
            return case[key]
    text = ", ".join(f"{key}={value!r}" for key, value in case.items() if key not in ("named", "out", "file"))
    return text if len(text) <= 120 else text[:117] + " …"
