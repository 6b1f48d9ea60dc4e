"""How things look: tables, sizes, shapes, notes, a progress bar. Tables go to stdout, the rest to stderr."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, TextIO

import typer

SCHEMA = 1  # of every object that --json prints
LARGE = 100_000_000  # bytes of a file that is announced before it is written
PATIENCE = 0.4  # seconds before a bar is drawn
CONTROL = frozenset(map(chr, (*range(9), *range(11, 32), *range(127, 160))))  # all but tab and line feed
FOLDED = frozenset({"type", "used by", "output", "passes", "result"})  # columns that may take several lines
UNITS = ("B", "kB", "MB", "GB", "TB")


def show(text: str = "") -> None:
    """One line of the result, on stdout."""
    typer.echo(printable(text))


def show_part(text: str) -> None:
    """Text that comes in parts, on stdout at once; its line ends stay."""
    sys.stdout.write("\n".join(map(printable, text.split("\n"))))
    sys.stdout.flush()


def printable(text: str) -> str:
    """``text`` with control characters spelled out: a name in a model must not steer the terminal."""
    return "".join(f"\\x{ord(char):02x}" if char in CONTROL else char for char in text)


def show_json(data: dict[str, Any]) -> None:
    """The one object that ``--json`` prints, its schema first; what JSON has no number for (infinity, NaN) is null."""
    typer.echo(json.dumps(_finite({"schema": SCHEMA} | data), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def tell(text: str) -> None:
    """One line about the work, on stderr."""
    typer.echo(printable(text), err=True)


def tell_all(kind: str, sentences: Iterable[str]) -> None:
    """Sentences on stderr, each prefixed by what it is (``note``, ``warning``); a warning stands out on a terminal."""
    colour = {"warning": "yellow", "note": "cyan"}.get(kind)
    for sentence in sentences:
        head = typer.style(f"{kind}:", fg=colour, bold=True) if colour and _coloured(sys.stderr) else f"{kind}:"
        typer.echo(f"{head} {printable(sentence)}", err=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = ()) -> None:
    """A table on stdout, the columns named in ``right`` flush right.

    On a terminal too narrow for it the columns of ``FOLDED`` take more lines; elsewhere every line is as long as it is.
    """
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        drawn.add_column(
            Text(column), justify="right" if column in right else "left", no_wrap=column not in FOLDED, overflow="fold"
        )
    for row in rows:
        drawn.add_row(*(Text("" if cell is None else printable(str(cell))) for cell in row))
    _print(drawn)


def heading(text: str) -> None:
    """A title over what follows, after an empty line."""
    show()
    typer.echo(typer.style(printable(text), bold=True) if _coloured(sys.stdout) else printable(text))


def size(count: int | None) -> str:
    """Bytes for people: ``1.4 GB``; a dash where unknown."""
    if count is None:
        return "-"
    number = float(count)
    for unit in UNITS:
        if number < 1000 or unit == UNITS[-1]:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError("the last unit takes everything")


def shape(value: dict[str, Any]) -> str:
    """``FLOAT[batch_size, 2, ?]`` of a described value."""
    dims = value["shape"]
    inside = "rank ?" if dims is None else ", ".join("?" if dim is None else str(dim) for dim in dims)
    return f"{value['dtype'] or '?'}[{inside}]"


def change(before: int, after: int) -> str:
    """``625 -> 290``, or the number alone where it stayed."""
    return str(after) if before == after else f"{before} -> {after}"


def count(number: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def counts(numbers: Mapping[str, int]) -> str:
    """What a pass did, as words: ``states 4, nodes 450``; what it did not do is left out."""
    return (
        ", ".join(f"{what.replace('_', ' ')} {number}" for what, number in numbers.items() if number) or "nothing to do"
    )


def few(names: Sequence[str], limit: int = 3) -> str:
    """The first names, and how many more there are."""
    rest = len(names) - limit
    return ", ".join(names) if rest <= 0 else f"{', '.join(names[:limit])} and {rest} more"


class Progress:
    """A callback ``(what, done, total)`` that announces a large file, and draws a bar where stderr is a terminal.

    As a context it takes the bar off the screen in the end, whatever happens.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._began = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Shows that ``done`` of ``total`` bytes of ``what`` are written; nothing for what is done in no time."""
        if done == 0 and total >= LARGE:
            tell(f"writing {what}, {size(total)}")
        if not sys.stderr.isatty():
            return
        if done == 0:
            self._began = time.monotonic()
        if self._bar is None and time.monotonic() - self._began < PATIENCE:
            return
        self._draw(what, done, total)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _draw(self, what: str, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = _new_bar()
        if self._task is None:
            self._task = self._bar.add_task(what, total=total)
        self._bar.update(self._task, description=what, completed=done, total=total)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Takes the bar off the screen; a later call starts a new one."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None


def _new_bar() -> Any:
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Bar(*columns, console=_console(sys.stderr), transient=True)
    bar.start()
    return bar


def _print(what: Any) -> None:
    console = _console(sys.stdout)
    with console.capture() as captured:
        console.print(what)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _console(stream: TextIO) -> Any:
    from rich.console import Console

    # a table that goes to a file or a pipe keeps every character: nothing is folded at some terminal's width
    width = None if stream.isatty() else 100_000
    colours = "auto" if _coloured(stream) else None
    return Console(file=stream, width=width, color_system=colours, markup=False, highlight=False, emoji=False)


def _coloured(stream: TextIO) -> bool:

    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
