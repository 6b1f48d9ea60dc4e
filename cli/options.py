"""Several subcommands share these options and arguments, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..ir.core.errors import UsageError


def _note_debug(context: typer.Context, value: bool) -> bool:
    if value:
        context.obj.debug = True
    return value


Debug = Annotated[
    bool, typer.Option("--debug", callback=_note_debug, is_eager=True, help="Show the traceback of a failure.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Accept weight files that are links to outside the model's folder.")
]
OrtOptimization = Annotated[
    str, typer.Option(metavar="LEVEL", help="onnxruntime's optimizations: none (operators as spelled), basic or all.")
]
ModelPath = Annotated[
    Path,
    typer.Argument(metavar="MODEL_OR_DIR", help="An .onnx file, or a folder that `run` wrote.", show_default=False),
]


def parse_binding(items: list[str]) -> dict[str, int]:
    """Reads ``["ctx_len=4096", "batch=1"]``; UsageError where an item is not SYMBOL=N with N >= 0."""
    binding: dict[str, int] = {}
    for item in items:
        name, equals, number = item.rpartition("=")
        if not equals or not name or not number.isascii() or not number.isdigit():
            raise UsageError(f"--bind takes SYMBOL=N with a whole number, like --bind ctx_len=4096; found {item!r}")
        binding[name.strip()] = int(number)
    return binding
