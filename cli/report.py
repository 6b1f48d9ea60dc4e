"""The report of a run is one HTML file: nothing is loaded from elsewhere, and it reads without scripts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir.core.errors import UsageError, WriteError
from .inspect import starred
from .report_page import PAGE

if TYPE_CHECKING:
    from .job import Outcome


def require_template_engine() -> None:
    """UsageError, with the command that installs it, where jinja2 is not there."""
    from importlib.util import find_spec

    if find_spec("jinja2") is None:
        raise UsageError("--report needs jinja2", hint="Install it: pip install jinja2")


def write_report(path: Path, outcome: Outcome) -> None:
    """Writes the report of a finished run, whole or not at all; WriteError where the file cannot be written."""
    text = render_report(outcome)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise WriteError(
            f"the report cannot be written: {error.strerror}",
            where=str(path),
            hint=f"The result itself is complete in {outcome.out}.",
        ) from error


def render_report(outcome: Outcome) -> str:
    """The page as text; every name from the model is escaped."""
    import jinja2

    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(PAGE)
    return template.render(_facts(outcome))


def _facts(outcome: Outcome) -> dict[str, Any]:
    from . import render

    assert outcome.described is not None, "a job with a report describes its graphs"
    before, after = (description["graphs"] for description in outcome.described)
    only = next(iter(before.values()))
    return {
        "about": _about(outcome),
        "graphs": [_graph(name, before.get(name, only), graph) for name, graph in after.items()],
        "records": [
            {"text": record.text, "did": render.counts(record.counts), "seconds": f"{record.seconds:.3f}"}
            for record in outcome.records
        ],
        "said": [
            *(("warning", text) for record in outcome.records for text in record.warnings),
            *(("note", text) for record in outcome.records for text in record.notes),
            *(("note", text) for text in outcome.save_notes),
        ],
        "assumptions": outcome.assumptions,
        "proof": outcome.proof,
        "files": [(name, render.size(count)) for name, count in outcome.files.items()],
    }


def _about(outcome: Outcome) -> list[tuple[str, str]]:
    """What ran on what, and with which versions."""
    from importlib.metadata import version

    packages = ("onnx-llm-passes", "onnx", "onnx-ir", "onnxruntime")
    return [
        ("pipeline", outcome.pipeline),
        ("model", outcome.source.as_posix()),
        ("written to", outcome.out.as_posix()),
        ("versions", ", ".join(f"{name} {version(name)}" for name in packages)),
    ]


def _graph(name: str, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "sizes": list(_sizes(before, after)),
        "operators": _operators(before["operators"], after["operators"]),
        **{what: _rows(before, after, what) for what in ("inputs", "outputs", "states", "symbols")},
    }


def _sizes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What is counted of a graph, before and after; caches where every size of theirs is known."""
    from . import render

    for what in ("nodes", "inputs", "outputs", "states"):
        was, now = (graph[what]["total"] if what == "nodes" else len(graph[what]) for graph in (before, after))
        yield what, str(was), str(now)
    yield "weights", render.size(before["weights"]["bytes"]), render.size(after["weights"]["bytes"])
    if None not in (before["state_bytes"], after["state_bytes"]):
        yield "bytes of states", render.size(before["state_bytes"]), render.size(after["state_bytes"])


def _operators(before: Mapping[str, int], after: Mapping[str, int]) -> list[dict[str, Any]]:
    """Every kind of operator with its numbers, the commonest first; bars as shares of the largest number."""
    most = max([*before.values(), *after.values()], default=1)
    rows = [(name, before.get(name, 0), after.get(name, 0)) for name in {*before, *after}]
    return [
        {"name": name, "was": was, "now": now, "bars": (100 * was / most, 100 * now / most)}
        for name, was, now in sorted(rows, key=lambda row: (-max(row[1:]), row[0]))
    ]


def _rows(before: dict[str, Any], after: dict[str, Any], what: str) -> list[dict[str, Any]]:
    """What was there first, struck out where it is gone, then what is new; layers that are alike in one row."""
    old, new = ({entry["name"]: _type(entry) for entry in graph[what]} for graph in (before, after))
    layers = {**_layers(before), **_layers(after)}
    rows = [("" if name in new else "gone", name, text, new[name] if new.get(name, text) != text else "")
            for name, text in old.items()]  # fmt: skip
    rows += [("new", name, text, "") for name, text in new.items() if name not in old]
    groups: dict[tuple[str, ...], list[str]] = {}
    for mark, name, *texts in rows:
        groups.setdefault((mark, starred(name, layers.get(name)), *texts), []).append(name)
    return [
        {"mark": mark, "cells": [name, *texts], "names": names if len(names) > 1 else []}
        for (mark, name, *texts), names in groups.items()
    ]


def _layers(graph: dict[str, Any]) -> dict[str, int]:
    """The layer of each state's name, input and output."""
    ends = ((state[end], state["layer"]) for state in graph["states"] for end in ("name", "input", "output"))
    return {name: layer for name, layer in ends if name is not None and layer is not None}


def _type(entry: dict[str, Any]) -> str:
    from . import render

    words = [render.shape(entry)] if "shape" in entry else []
    return ", ".join(words + [str(entry[key]) for key in ("role", "layout", "kind") if entry.get(key)])
