"""``onnx-passes demo`` does the whole job on two small decoders built on the spot; it needs no network, no model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..ir.core.errors import OutputError
from . import render
from .job import Job, Outcome, execute
from .options import Debug

if TYPE_CHECKING:
    from ..runtime.verify.verify import VerifyReport

FOLDER = Path("onnx-passes-demo")
PIPELINE = "single-shot"
IDIOMS = {  # sample -> how its cache is written, as the table says it
    "append": "grows by Concat",
    "scatter": "written at positions",
}


@dataclass(frozen=True)
class Shown:
    """What the demo did with one sample."""

    idiom: str
    outcome: Outcome
    report: VerifyReport


def demo(
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="The folder to write; an earlier demo in it is replaced.")
    ] = FOLDER,
    debug: Debug = False,
) -> None:
    """Build a small decoder in two exporters' idioms, strip its cache, verify the result, show what changed."""
    from .verify import passed

    render.show("A decoder as two exporters write it; its cache taken out, for one run over the whole text.")
    render.show()
    try:
        shown = [run_one(idiom, out) for idiom in IDIOMS]
        write_texts(out / "texts.jsonl")
    except OutputError as error:
        raise OutputError(error.what, where=error.where, hint="Give the demo another folder with -o.") from error
    _show(shown)
    render.show()
    render.show(f"Written to {out}: originals, results, and how they were made (program.json).")
    render.show(f"Texts of token ids, for calibrate and compare: {out / 'texts.jsonl'}")
    render.show(f"Look inside:  onnx-passes inspect {out / 'scatter' / 'original'}")
    render.show(f"              onnx-passes diff {out / 'append' / 'original'} {out / 'append' / PIPELINE}")
    if not all(passed(one.report) for one in shown):
        raise typer.Exit(1)


def run_one(idiom: str, out: Path) -> Shown:
    """Builds one sample below ``out``, runs the pipeline on it and verifies; what the floors below raise."""
    from ..ir.program.program import Program
    from ..runtime.samples.samples import SAMPLES
    from ..runtime.verify.verify import verify

    original, result = out / idiom / "original", out / idiom / PIPELINE
    Program(graphs={"model": SAMPLES[idiom]()}).save(original, fill_shapes=False)
    outcome = execute(Job(pipeline=PIPELINE, model=original / "model.onnx", out=result))
    return Shown(idiom, outcome, verify(Program.load(original), Program.load(result)))


def write_texts(path: Path) -> None:
    """A text a line, each an object with its token ids: what ``--tokens`` reads."""
    from ..runtime.samples.samples import TEXTS

    try:
        path.write_text("".join(json.dumps({"input_ids": ids}) + "\n" for ids in TEXTS), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=str(path)) from error


def _show(shown: list[Shown]) -> None:
    columns = ("cache", "nodes", "inputs", "outputs", "max difference", "compared")
    render.table(columns, map(_row, shown), right=("max difference",))


def _row(one: Shown) -> tuple[Any, ...]:
    before, after = next(iter(one.outcome.changes().values()))
    sides = ((before["nodes"], after["nodes"]), *((len(before[w]), len(after[w])) for w in ("inputs", "outputs")))
    changed = (f"{old} -> {new}" for old, new in sides)
    return IDIOMS[one.idiom], *changed, f"{one.report.max_abs:g}", f"{render.count(one.report.runs, 'run')}"
