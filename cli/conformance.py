"""``onnx-passes conformance`` tells whether our manifests say what another tool's cases record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import render
from .options import Debug, Json

if TYPE_CHECKING:
    from ..runtime.conformance import Conformance


def conformance(
    cases: Annotated[
        Path,
        typer.Argument(metavar="CASES.jsonl", help='Lines of {"section": "…", "case": {…}}.', show_default=False),
    ],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run recorded cases of manifests against our own functions. Exit code 0 where none fails, 1 where one does.

    A case marked "B" records a known bug: it passes where we refuse, or answer otherwise. Sections that nothing
    answers yet are counted as not built, and fail nothing.
    """
    from ..runtime.conformance import run_cases
    from ..runtime.conformance.speculative import SECTIONS

    found = run_cases(cases, SECTIONS)
    render.show_json(found.to_dict()) if as_json else _show(found)
    if not found.passed:
        raise typer.Exit(1)


def _show(found: Conformance) -> None:
    from ..runtime.conformance import Outcome

    columns = ("section", *(outcome.value for outcome in Outcome))
    rows = [(name, *(counts[outcome] for outcome in Outcome)) for name, counts in found.rows()]
    render.table(columns, rows, right=columns[1:])
    for result in found.results:
        if result.outcome is Outcome.FAILED:
            render.show(f"line {result.line}, {result.label}: {result.reason}")
    render.show()
    render.show(f"{'passed' if found.passed else 'FAILED'}: {render.count(len(found.results), 'case')}")
