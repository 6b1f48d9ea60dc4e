"""``onnx-passes calibrate`` watches what each tensor holds while real texts run through the graph in chunks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..ir.core.errors import UnknownNameError, WriteError
from . import render
from .options import Debug, FollowLinks, Json, ModelPath

if TYPE_CHECKING:
    from ..ir.program.program import Program
    from ..ir.quantization import EncodingTable
    from ..runtime.calibrate.calibrate import Plan

METHODS = ("minmax", "percentile", "mse", "entropy")
OUT = Path("encodings.json")
ENVELOPES = ("none", "pair-norm")


def calibrate(
    model: ModelPath,
    tokens: Annotated[
        Path, typer.Option(metavar="F", help="Token ids (.npz, .npy, .jsonl), or text.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="The file to write.")] = OUT,
    method: Annotated[str, typer.Option(help=f"How a range is chosen: {', '.join(METHODS)}.")] = "minmax",
    chunk: Annotated[int, typer.Option(metavar="N", min=1, help="Tokens a run.")] = 256,
    samples: Annotated[int | None, typer.Option(metavar="N", min=1, help="At most so many texts.")] = None,
    engine: Annotated[str, typer.Option(help="local, local:N (processes), or dask://host:port.")] = "local",
    k_envelope: Annotated[str, typer.Option(help=f"The range of rotated keys: {', '.join(ENVELOPES)}.")] = "none",
    percentile: Annotated[float, typer.Option(min=50, max=100, help="How much of each tensor is kept.")] = 99.99,
    graph: Annotated[str | None, typer.Option(metavar="NAME", help="The graph to run; the prefill of several.")] = None,
    ctx: Annotated[int | None, typer.Option(metavar="N", min=1, help="The context length of the deployment.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(metavar="F", help="The tokenizer.json of a text.")] = None,
    form: Annotated[str, typer.Option("--format", help="native, ort, aimet-1.0.0 and others.")] = "native",
    bits: Annotated[
        int, typer.Option(min=4, max=16, help="Bits of activations, where the format holds no histograms.")
    ] = 16,
    kv_bits: Annotated[int, typer.Option(min=8, max=16, help="Bits of caches, where the format holds grids.")] = 8,
    as_json: Json = False,
    follow_links: FollowLinks = False,
    debug: Debug = False,
) -> None:
    """Run texts through a graph in chunks, carrying the cache, and write the range of every tensor.

    A killed run goes on where it was when the same command is given again; its result is the same.
    """
    from ..ir.program.program import Program
    from ..ir.quantization import FORMATS
    from ..runtime.calibrate.calibrate import Envelope, Method, Plan
    from ..runtime.calibrate.calibrate import calibrate as run
    from ..runtime.calibrate.engine import parse_engine
    from ..runtime.calibrate.tokens import read_tokens

    for kind, name, known in (
        ("method", method, METHODS),
        ("envelope", k_envelope, ENVELOPES),
        ("encodings format", form, FORMATS),
    ):
        if name not in known:
            raise UnknownNameError(kind, name, known)
    plan = Plan(Method(method), chunk, Envelope(k_envelope), percentile)
    spread = parse_engine(engine)
    program = Program.load(model, follow_links=follow_links)
    texts = read_tokens(tokens, limit=samples, tokenizer=tokenizer or _beside(model))
    with _Bar() as bar:
        keeping = {"progress": _partial(out), "on_progress": bar}
        table = run(program, texts, plan, engine=spread, follow_links=follow_links, graph=graph, **keeping)
    text, notes = _printed(program, table, form, bits, kv_bits)
    _write(out, text)
    _tell(table, plan, ctx, (form, bits), notes)
    _show(out, table, as_json)


def _beside(model: Path) -> Path | None:
    folder = model if model.is_dir() else model.parent
    file = folder / "tokenizer.json"
    return file if file.is_file() else None


def _partial(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial")


def _printed(program: Program, table: EncodingTable, form: str, bits: int, kv_bits: int) -> tuple[str, list[str]]:
    """The text of the file; grids are made where the format holds grids and no ranges."""
    from ..ir.quantization import print_encodings
    from ..runtime.calibrate.grids import grids_of, resolved

    if form == "native":
        return print_encodings(table, form), []
    if form == "ort":
        return print_encodings(resolved(table, bits), form), []
    grids, left_out = grids_of(program, table, form, bits, kv_bits)
    names = render.few(left_out, 4)
    notes = [f"{len(left_out)} tensors have no usable range and no grid: {names}"] if left_out else []
    return print_encodings(grids, form), notes


def _write(out: Path, text: str) -> None:
    beside = out.with_name(f".{out.name}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(out)
    except OSError as error:
        raise WriteError(f"cannot be written: {error.strerror}", where=str(out)) from error


def _tell(table: EncodingTable, plan: Plan, ctx: int | None, written: tuple[str, int], notes: list[str]) -> None:
    facts, (form, bits) = table.calibration, written
    assert facts is not None, "calibrate says how it found what it found"
    if masks := list(facts.clamped):
        notes.append(f"mask fills were clamped to -120 in {len(masks)} tensors: {render.few(masks)}")
    if facts.left_out:
        notes.append(f"{facts.left_out} tokens were left out: they do not fill a run, or the cache is too short")
    if 0 < facts.answers < facts.tokens:
        notes.append(
            f"the graph answers {facts.answers} of {facts.tokens} tokens (the last of a run): the ranges of its "
            "last layers rest on these alone; a smaller --chunk shows more"
        )
    if form != "native" and plan.method.value != "minmax":
        notes.append(f"{form} holds no histograms: ranges were chosen for {bits} bits (--bits)")
    unseen = [name for name, seen in table.ranges.items() if not seen.usable]
    if unseen:
        notes.append(f"{len(unseen)} tensors showed no range: {render.few(unseen)}")
    render.tell_all("note", notes)
    if ctx is not None and facts.longest is not None and facts.longest < ctx and plan.envelope.value == "none":
        warning = (
            f"the longest text has {facts.longest} tokens, the deployment {ctx}: keys after rotation may go beyond "
            "the ranges; give longer texts or --k-envelope pair-norm"
        )
        render.tell_all("warning", [warning])


def _show(out: Path, table: EncodingTable, as_json: bool) -> None:
    facts: dict[str, Any] = {"schema": 1, "out": out.as_posix(), "tensors": len(table.ranges)}
    facts |= table.calibration.to_json() if table.calibration is not None else {}
    if as_json:
        render.show_json(facts)
        return
    texts = render.count(facts["samples"], "text")
    render.show(f"{facts['tensors']} tensors, {texts}, {facts['tokens']} tokens -> {out}")


class _Bar:
    """A bar over samples on stderr, where that is a terminal."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Draws ``done`` of ``total`` samples."""
        import sys

        if not sys.stderr.isatty():
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(what, total=total)
        self._bar.update(self._task, description=what, completed=done, total=total)
