"""The report of a run is one HTML file: nothing is loaded from elsewhere, and it reads without scripts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir.core.errors import UsageError, WriteError

if TYPE_CHECKING:
    from .job import Outcome

TEMPLATE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ pipeline }} on {{ source }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1c2024; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; } h3 { font-size: 1rem; margin-bottom: .3rem; }
table { border-collapse: collapse; margin: .3rem 0 1rem; }
th, td { text-align: left; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid #e3e6e8; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
code, td.t { font: 13px/1.5 ui-monospace, monospace; }
.gone td { color: #9b2c2c; text-decoration: line-through; } .new td { color: #22663b; }
.warning { background: #fff4d6; padding: .3rem .6rem; } .note { color: #4a5560; }
.wide { overflow-x: auto; }
@media (prefers-color-scheme: dark) {
  body { background: #15181b; color: #dfe3e6; } th, td { border-color: #30363b; } .warning { background: #4a3b10; }
  .gone td { color: #f29a9a; } .new td { color: #8fd6a6; } .note { color: #a5b0b8; }
}
</style>
<h1><code>{{ pipeline }}</code></h1>
<p>on <code>{{ source }}</code>, written to <code>{{ out }}</code></p>
{% macro values(title, rows) %}
<h3>{{ title }}</h3>
<div class="wide"><table>
{% for row in rows %}<tr class="{{ row.mark }}">
{% for cell in row.cells %}<td class="t">{{ cell }}</td>{% endfor %}</tr>
{% else %}<tr><td>none</td></tr>
{% endfor %}</table></div>
{% endmacro %}
{% for graph in graphs %}
<h2>Graph {{ graph.name }}: {{ graph.nodes[0] }} &rarr; {{ graph.nodes[1] }} nodes</h2>
{{ values("Inputs", graph.inputs) }}
{{ values("Outputs", graph.outputs) }}
{{ values("States", graph.states) }}
{{ values("Symbols", graph.symbols) }}
{% endfor %}
<h2>Passes</h2>
<div class="wide"><table>
<tr><th>pass<th>did<th class="n">seconds</tr>
{% for record in records %}
<tr><td class="t">{{ record.text }}<td>{{ record.did }}<td class="n">{{ record.seconds }}</tr>
{% endfor %}</table></div>
{% for kind, sentence in said %}<p class="{{ kind }}">{{ kind }}: {{ sentence }}</p>
{% endfor %}
{% if assumptions %}<h2>What the result assumes</h2>
<ul>{% for line in assumptions %}<li>{{ line }}</li>{% endfor %}</ul>{% endif %}
<h2>Files</h2>
<table>
{% for name, size in files %}<tr><td class="t">{{ name }}<td class="n">{{ size }}</tr>
{% endfor %}</table>
</html>
"""


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

    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(TEMPLATE)
    return template.render(_facts(outcome))


def _facts(outcome: Outcome) -> dict[str, Any]:
    from . import render

    assert outcome.described is not None, "a job with a report describes its graphs"
    before, after = (description["graphs"] for description in outcome.described)
    only = next(iter(before.values()))
    return {
        "pipeline": outcome.pipeline,
        "source": outcome.source.as_posix(),
        "out": outcome.out.as_posix(),
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
        "files": [(name, render.size(count)) for name, count in outcome.files.items()],
    }


def _graph(name: str, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "nodes": (before["nodes"]["main"], after["nodes"]["main"]),
        **{what: _rows(before[what], after[what]) for what in ("inputs", "outputs", "states", "symbols")},
    }


def _rows(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was there first, struck out where it is gone, then what is new; each with its type before and after."""
    old, new = ({entry["name"]: _type(entry) for entry in entries} for entries in (before, after))
    rows = [
        {"mark": "" if name in new else "gone", "cells": [name, text, new[name] if new.get(name, text) != text else ""]}
        for name, text in old.items()
    ]
    return rows + [{"mark": "new", "cells": [name, text, ""]} for name, text in new.items() if name not in old]


def _type(entry: dict[str, Any]) -> str:
    from . import render

    words = [render.shape(entry)] if "shape" in entry else []
    return ", ".join(words + [str(entry[key]) for key in ("role", "layout", "kind") if entry.get(key)])
