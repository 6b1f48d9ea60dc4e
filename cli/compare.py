"""``onnx-passes compare`` measures how far a quantized model is from its original, on real texts."""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..ir.core.errors import UsageError, WriteError
from . import render
from .options import Debug, FollowLinks, Json, OrtOptimization

if TYPE_CHECKING:
    import numpy as np

    from ..ir.program.program import Program
    from ..runtime.compare.programs import Comparison, Row

RANDOM = "no --tokens: random ids show that both run; only real texts show what rounding costs"
TITLE = "Quantization Error Summary"
HALVES = ", halves rounded result by result"
RULE = "─" * 13
PLOT_POINTS = 2000
PLOT_SIZE = (50, 25)
LINES = {  # measure -> how the summary calls it
    "mean_abs": "Mean |diff|",
    "max_abs": "Max |diff|",
    "peir": "PEIR",
    "mse": "MSE",
    "sqnr": "SQNR",
    "kl": "KL",
    "top1": "Top-1",
}


def compare(
    reference: Annotated[Path, typer.Argument(metavar="A", help="The model to measure against.", show_default=False)],
    other: Annotated[Path, typer.Argument(metavar="B", help="The quantized model.", show_default=False)],
    tokens: Annotated[
        Path | None, typer.Option(metavar="F", help="Token ids (.npz, .npy, .jsonl), or text; random ids without.")
    ] = None,
    texts: Annotated[Path | None, typer.Option(metavar="F", help="Texts for single-shot programs.")] = None,
    pairs: Annotated[Path | None, typer.Option(metavar="F", help="Queries and documents for rerankers.")] = None,
    template: Annotated[Path | None, typer.Option(metavar="F", help="With {text}, or {query} and {document}.")] = None,
    within: Annotated[
        Path | None, typer.Option(metavar="WHOLE", help="Of two layers cut out: the model that feeds them.")
    ] = None,
    per_layer: Annotated[bool, typer.Option("--per-layer", help="A row for each layer's new cache rows.")] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the logits of B over those of A.")] = False,
    page: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write bars a layer as a page.")] = None,
    samples: Annotated[int | None, typer.Option(metavar="N", min=1, help="At most so many texts.")] = None,
    chunk: Annotated[int, typer.Option(metavar="N", min=1, help="Tokens a run.")] = 64,
    graph: Annotated[str | None, typer.Option(metavar="NAME", help="The graph to run; the prefill of several.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(metavar="F", help="The tokenizer.json of a text.")] = None,
    ort_optimization: OrtOptimization = "none",
    as_json: Json = False,
    follow_links: FollowLinks = False,
    debug: Debug = False,
) -> None:
    """Run both models over the same texts, each with its own cache, and say how far B is from A."""
    from ..ir.program.program import Program
    from ..runtime.compare.layers import compare_layers
    from ..runtime.compare.programs import compare_programs
    from ..runtime.session.session import optimized
    from ..runtime.session.settings import optimization_of, runtime_record, saturation_note
    from ..runtime.verify.layer_play import layer_specs

    if sum(source is not None for source in (tokens, texts, pairs)) > 1:
        raise UsageError("give one of --tokens, --texts and --pairs")
    if texts is not None or pairs is not None:
        _answers((reference, other), (texts, pairs, template, tokenizer), follow_links, as_json)
        return
    programs = [Program.load(path, follow_links=follow_links) for path in (reference, other)]
    whole = Program.load(within, follow_links=follow_links) if within is not None else None
    samples_of = _samples(whole or programs[0], tokens, samples, tokenizer)
    if within is None and any(layer_specs(program) for program in programs):
        raise UsageError(
            "a layer takes hidden states, which only the whole model computes", hint="Give --within WHOLE."
        )
    with optimized(optimization_of(ort_optimization)):
        if whole is not None:
            found = compare_layers(programs[0], programs[1], whole, samples_of)
        else:
            found = compare_programs(programs[0], programs[1], samples_of, chunk=chunk, graph=graph)
        ran, note = runtime_record(), saturation_note(programs)
    render.tell_all("note", [note] if note else [])
    if page is not None:
        _write(page, _page(found))
    if as_json:
        render.show_json({**found.to_dict(), "runtime": ran})
        return
    _show(found, per_layer=per_layer)
    render.show(f"{found.tokens} tokens, optimization {ran['optimization']}{HALVES * found.rounded}")
    if plot and found.logits is not None:
        typer.echo(scatter(*found.logits))


def _samples(program: Program, tokens: Path | None, limit: int | None, tokenizer: Path | None) -> list[np.ndarray]:
    """The texts of a file; random ids of the program's vocabulary, with a note, where none is given."""
    from ..runtime.calibrate.tokens import random_tokens, read_tokens

    if tokens is not None:
        return read_tokens(tokens, limit=limit, tokenizer=tokenizer)
    render.tell_all("note", [RANDOM])
    return random_tokens(program, limit)


def _answers(
    models: tuple[Path, Path], given: tuple[Path | None, Path | None, Path | None, Path | None], follow_links: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Runs both single-shot programs over the same texts or pairs, and says how far their answers agree."""
    from ..ir.program.program import Program
    from ..ir.serialization.tokenizer_file import find_tokenizer
    from ..runtime.compare.answers import compare_answers
    from ..runtime.predict.predict import Predictor
    from ..runtime.predict.texts import read_pairs, read_template, read_texts
    from ..runtime.predict.tokens import Encoder

    texts, pairs, template, tokenizer = given
    shape = read_template(template) if template is not None else None
    items = read_texts(texts, shape) if texts is not None else read_pairs(pairs or Path(), shape)
    queries = [item.text for item in read_pairs(pairs)] if pairs is not None else None
    folders = dict.fromkeys(path if path.is_dir() else path.parent for path in models)
    encoder = Encoder(find_tokenizer(tokenizer, *folders))
    programs = [Program.load(path, follow_links=follow_links) for path in models]
    answers = [Predictor(program).texts(items, encoder).values for program in programs]
    found = compare_answers(answers[0], answers[1], queries)
    if as_json:
        render.show_json({"kind": found.kind, "number": found.number, "rankings": found.groups, **found.measures})
        return
    render.table(("measure", "value"), [(name, f"{value:.6g}") for name, value in found.measures.items()])
    ranked = f", {render.count(found.groups, 'ranking')}" if found.kind == "scores" else ""
    render.show(f"{found.number} {found.kind}{ranked}")


def _show(found: Comparison, *, per_layer: bool) -> None:
    for row in (row for row in found.rows if row.layer is None):
        for line in box(row):
            render.show(line)
    if per_layer:
        names = list(next(iter(found.rows)).measures)[:5]
        columns = ("tensor", *(LINES.get(name, name) for name in names))
        rows = ([row.label, *(number(name, row.measures[name]) for name in names)] for row in found.rows)
        render.table(columns, rows, right=columns[1:])


def box(row: Row) -> list[str]:
    """The summary of one tensor, framed as people know it."""
    names = [LINES.get(name, name) for name in row.measures]
    width = max(len(name) for name in names)
    lines = [f"┌{RULE} {TITLE} {RULE}", f"│ {'Tensor':<{width}}: {row.label}"]
    for name, shown in zip(row.measures, names, strict=True):
        lines.append(f"│ {shown:<{width}}: {number(name, row.measures[name])}")
    return [*lines, "└" + "─" * (2 * len(RULE) + len(TITLE) + 2)]


def number(name: str, value: float) -> str:
    """A measure as people read it: shares in percent, signal over noise in decibels."""
    if name in ("peir", "top1"):
        return f"{100 * value:.6f} %"
    if name == "sqnr":
        return f"{value:.3f} dB"
    return f"{value:.6f}" if not math.isfinite(value) or abs(value) >= 1e-4 or value == 0 else f"{value:.3e}"


def scatter(reference: np.ndarray, other: np.ndarray) -> str:
    """The logits of B over those of A as a plot of 50 by 25 characters."""
    try:
        import plotext
    except ImportError:
        raise UsageError("plotext is not installed", hint="pip install 'onnx-llm-passes[report]'") from None
    step = max(1, reference.size // PLOT_POINTS)
    x, y = reference.reshape(-1)[::step].tolist(), other.reshape(-1)[::step].tolist()
    low, high = min(*x, *y), max(*x, *y)
    room = 0.05 * (high - low)
    draw = _draw_now if hasattr(plotext, "figure") and hasattr(plotext.figure, "signal") else _draw_before
    return draw(plotext, x, y, (low - room, high + room))


def _draw_before(plotext: Any, x: list[float], y: list[float], limits: tuple[float, float]) -> str:
    """As plotext draws up to release 5."""
    plotext.clear_figure()
    plotext.xlim(*limits)
    plotext.ylim(*limits)
    plotext.plotsize(*PLOT_SIZE)
    plotext.theme("clear")
    plotext.scatter(x, y, marker="dot")
    return str(plotext.build())


def _draw_now(plotext: Any, x: list[float], y: list[float], limits: tuple[float, float]) -> str:
    """As plotext draws from release 6 on."""
    figure = plotext.figure
    figure.clear()
    figure.plot_size(*PLOT_SIZE)
    figure.draw(figure.signal(x, y, marker="•"))
    for axis in ("x", "y"):
        figure.ruler(axis).lim(*limits)
    return plotext.uncolorize(str(figure.build()))


def _page(found: Comparison) -> str:
    """A page that needs nothing else: a bar a tensor, as long as its PEIR."""
    longest = max((row.measures["peir"] for row in found.rows), default=0.0) or 1.0
    bars = "\n".join(_bar(row, longest) for row in found.rows)
    return (
        f"<!doctype html>\n<html lang='en'><meta charset='utf-8'><title>{TITLE}</title>\n"
        "<style>body{font:14px sans-serif;margin:2em}td{padding:2px 8px}i{display:block;height:12px;background:#47a}"
        f"</style>\n<h1>{TITLE}</h1><p>{found.tokens} tokens; bars are PEIR</p>\n<table>\n{bars}\n</table></html>\n"
    )


def _bar(row: Row, longest: float) -> str:
    width = 400 * row.measures["peir"] / longest
    numbers = "".join(f"<td>{number(name, row.measures[name])}</td>" for name in ("peir", "sqnr"))
    return f"<tr><td>{html.escape(row.label)}</td><td><i style='width:{width:.1f}px'></i></td>{numbers}</tr>"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WriteError(f"cannot be written: {error.strerror}", where=str(path)) from error
