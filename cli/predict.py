"""``onnx-passes predict`` gives vectors or scores of texts, from a program that answers in one run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..ir.core.errors import UsageError, WriteError
from . import render
from .ending import guarded
from .options import Debug, FollowLinks, Json

if TYPE_CHECKING:
    from ..ir.program.program import Program
    from ..runtime.predict.predict import Predicted, Predictor

BETWEEN = 0.2  # seconds between two lines of progress


def predict(
    program: Annotated[Path, typer.Argument(metavar="DIR", help="A program, or an .onnx file.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="F", help="out.npy, or out.jsonl.", show_default=False)],
    texts: Annotated[Path | None, typer.Option(metavar="F", help="A text a line, or .jsonl.")] = None,
    pairs: Annotated[Path | None, typer.Option(metavar="F", help="A query and a document a line, or .jsonl.")] = None,
    feeds: Annotated[Path | None, typer.Option(metavar="F.npz", help="Arrays named like the inputs.")] = None,
    template: Annotated[
        Path | None, typer.Option(metavar="F", help="A text with {text}, or {query} and {document}.")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(metavar="F", help="tokenizer.json, else the one in DIR.")] = None,
    batch: Annotated[int | None, typer.Option(metavar="N", min=1, help="Texts a run.")] = None,
    output: Annotated[str | None, typer.Option(metavar="NAME", help="The output, where there are several.")] = None,
    feeds_out: Annotated[Path | None, typer.Option(metavar="F.npz", help="Write what was fed.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse texts longer than the largest length.")] = False,
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="Threads of onnxruntime.")] = 1,
    as_json: Json = False,
    follow_links: FollowLinks = False,
    debug: Debug = False,
) -> None:
    """Run a single-shot program over texts: tokenize, cut, pad to the smallest compiled length, run in batches."""
    from ..runtime.session.isolate import in_child

    given = [source for source in (texts, pairs, feeds) if source is not None]
    if len(given) != 1:
        raise UsageError("give one of --texts, --pairs and --feeds", found=len(given))
    if out.suffix not in (".npy", ".jsonl"):
        raise UsageError("the result is a .npy or a .jsonl file", found=str(out))

    def work() -> int:
        from ..ir.program.program import Program
        from ..runtime.predict.predict import Predictor
        from ..runtime.session.arrays import read_arrays

        loaded = Program.load(program, follow_links=follow_links)
        predictor = Predictor(loaded, output=output, threads=threads)
        if feeds is not None:
            found = predictor.arrays(read_arrays(feeds), progress())
        else:
            found = _texts(loaded, predictor, (texts, pairs, template, tokenizer, program), batch, strict, feeds_out)
        _write(found, out)
        if feeds_out is not None:
            import numpy as np

            np.savez(feeds_out, **found.feeds)  # pyright: ignore[reportArgumentType]
        _show(found, out, as_json)
        return 0

    code = in_child(lambda: guarded(work, debug=lambda: debug), "predicting")
    if code:
        raise typer.Exit(code)


def _texts(
    loaded: Program, predictor: Predictor, given: tuple[Path | None, Path | None, Path | None, Path | None, Path],
    batch: int | None, strict: bool, feeds_out: Path | None,
) -> Predicted:  # fmt: skip
    from ..ir.serialization.tokenizer_file import find_tokenizer
    from ..runtime.predict.texts import read_pairs, read_template, read_texts
    from ..runtime.predict.tokens import Encoder

    texts, pairs, template, tokenizer, path = given
    shape = read_template(template) if template is not None else None
    items = read_texts(texts, shape) if texts is not None else read_pairs(pairs or Path(), shape)
    folder = path if path.is_dir() else path.parent
    encoder = Encoder(find_tokenizer(tokenizer, *(dict.fromkeys([folder, folder.parent]))))
    return predictor.texts(
        items, encoder, batch=batch, strict=strict, keep_feeds=feeds_out is not None, on_step=progress()
    )


def progress() -> Callable[[int, int], None] | None:
    """A line on a terminal's stderr that counts texts; None elsewhere."""
    if not sys.stderr.isatty():
        return None
    last = [0.0]

    def tell(done: int, total: int) -> None:
        if (now := time.monotonic()) - last[0] > BETWEEN or done == total:
            last[0] = now
            typer.echo(f"\r{done} of {total} texts" if done < total else "\r\033[K", nl=False, err=True)

    return tell


def _write(found: Predicted, out: Path) -> None:
    import numpy as np

    try:
        if out.suffix == ".npy":
            np.save(out, found.values)
            return
        lines = (json.dumps({found.output: row.tolist()}, ensure_ascii=False) for row in found.values)
        out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise WriteError(f"cannot be written: {error.strerror}", where=str(out)) from error


def _show(found: Predicted, out: Path, as_json: bool) -> None:
    stats = found.stats
    if as_json:
        shape = list(found.values.shape)
        render.show_json({"output": found.output, "shape": shape, "file": str(out), "stats": stats.as_json()})
        return
    if stats.truncated:
        render.tell_all("warning", [f"{render.count(stats.truncated, 'text')} did not fit and lost the end"])
    render.show(f"wrote {out}: {found.output} {list(found.values.shape)}, {found.values.dtype}")
    render.show(
        f"{render.count(stats.texts, 'text')} in {render.count(stats.runs, 'run')}, {stats.texts_per_s:.0f} texts/s, "
        f"{100 * stats.padding:.0f} % padding"
    )
