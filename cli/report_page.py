"""The page of a run's report is a template: one file, no script, nothing loaded from elsewhere, light and dark."""

from __future__ import annotations

STYLE = """
:root { --ink: #1c2024; --soft: #55606a; --paper: #fff; --line: #dfe3e6; --gone: #9b2c2c; --new: #1d6b3a;
  --warn: #fff4d6; --was: #b9c4cf; --now: #3b76b0; }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe3e6; --soft: #a5b0b8; --paper: #15181b; --line: #30363b;
  --gone: #f29a9a; --new: #8fd6a6; --warn: #4a3b10; --was: #56616b; --now: #6fa8dc; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: var(--ink);
  background: var(--paper); }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; } caption { text-align: left; font-weight: 600; }
table { border-collapse: collapse; margin: .6rem 0 1.2rem; }
th, td { text-align: left; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.t, p, li { overflow-wrap: anywhere; }
.values td.t, .values th { white-space: nowrap; }
thead th { color: var(--soft); font-weight: 500; } tbody th { font-weight: 400; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code, .t { font: 13px/1.5 ui-monospace, monospace; }
.gone .t { color: var(--gone); text-decoration: line-through; } .new .t { color: var(--new); }
.warning { background: var(--warn); padding: .3rem .6rem; } .note { color: var(--soft); }
.wide { overflow-x: auto; } .bar { width: 9rem; min-width: 4rem; }
.bar i { display: block; height: .4rem; min-width: 1px; }
.bar .was { background: var(--was); } .bar .now { background: var(--now); margin-top: 2px; }
summary { cursor: pointer; } summary:focus-visible { outline: 2px solid var(--now); }
@media print { body { max-width: none; margin: 0; } details > * { display: revert; } h2 { break-after: avoid; } }
"""

PAGE = (
    """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>onnx-passes run: {{ about[0][1] }}</title>
<style>"""
    + STYLE
    + """</style>
</head>
<body>
{% macro head(caption, names) %}<caption>{{ caption }}</caption>
<thead><tr>{% for name in names %}<th scope="col"{% if loop.index0 and name in ("before", "after", "seconds", "size") %}
 class="n"{% endif %}>{{ name }}</th>{% endfor %}</tr></thead>{% endmacro %}
{% macro values(caption, names, rows) %}
{% if rows %}<div class="wide values" tabindex="0"><table>
{{ head(caption, names) }}
<tbody>{% for row in rows %}<tr class="{{ row.mark }}">
<th scope="row" class="t">{% if row.names %}<details><summary>{{ row.cells[0] }} ({{ row.names | length }})</summary>
{% for name in row.names %}{{ name }}<br>{% endfor %}</details>{% else %}{{ row.cells[0] }}{% endif %}</th>
{% for cell in row.cells[1:] %}<td class="t">{{ cell }}</td>{% endfor %}
<td>{{ {"gone": "gone", "new": "new"}.get(row.mark, "") }}</td></tr>
{% endfor %}</tbody></table></div>{% endif %}
{% endmacro %}
<header>
<h1>onnx-passes run</h1>
<table><tbody>{% for name, text in about %}<tr><th scope="row">{{ name }}</th><td class="t">{{ text }}</td></tr>
{% endfor %}</tbody></table>
{% if proof %}<p>{{ proof }}</p>{% endif %}
</header>
<main>
{% for graph in graphs %}
<section>
<h2>Graph {{ graph.name }}</h2>
<table>{{ head("Size", ("", "before", "after")) }}
<tbody>{% for what, was, now in graph.sizes %}<tr><th scope="row">{{ what }}</th><td class="n">{{ was }}</td>
<td class="n">{{ now }}</td></tr>{% endfor %}</tbody></table>
<div class="wide"><table>{{ head("Operators", ("operator", "before", "after", "")) }}
<tbody>{% for row in graph.operators %}<tr><th scope="row" class="t">{{ row.name }}</th><td class="n">{{ row.was }}</td>
<td class="n">{{ row.now }}</td><td class="bar" aria-hidden="true">
<i class="was" style="width:{{ row.bars[0] | round(1) }}%"></i>
<i class="now" style="width:{{ row.bars[1] | round(1) }}%"></i>
</td></tr>
{% endfor %}</tbody></table></div>
{{ values("Inputs", ("name", "type and role", "type now", ""), graph.inputs) }}
{{ values("Outputs", ("name", "type", "type now", ""), graph.outputs) }}
{{ values("States", ("name", "type, layout, kind", "now", ""), graph.states) }}
{{ values("Symbols", ("name", "", "", ""), graph.symbols) }}
</section>
{% endfor %}
<section>
<h2>Passes</h2>
<div class="wide"><table>{{ head("In the order they ran", ("pass", "what it did", "seconds")) }}
<tbody>{% for record in records %}
<tr><th scope="row" class="t">{{ record.text }}</th><td>{{ record.did }}</td>
<td class="n">{{ record.seconds }}</td></tr>
{% endfor %}</tbody></table></div>
{% for kind, sentence in said %}<p class="{{ kind }}">{{ kind }}: {{ sentence }}</p>
{% endfor %}
</section>
{% if assumptions %}<section><h2>What the result assumes</h2>
<ul>{% for line in assumptions %}<li>{{ line }}</li>{% endfor %}</ul></section>{% endif %}
<section>
<h2>Files</h2>
<table>{{ head("What was written", ("file", "size")) }}
<tbody>{% for name, size in files %}<tr><th scope="row" class="t">{{ name }}</th><td class="n">{{ size }}</td></tr>
{% endfor %}</tbody></table>
</section>
</main>
</body>
</html>
"""
)
