"""What a public function is given becomes a program, whether it is a path, a program or a model in memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..ir.core.errors import UsageError, expect
from ..ir.core.gc_off import collector_off

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..ir.program.load import Source
    from ..ir.program.program import Program

    Model = Source | Program | Mapping[str, object]


def program_of(model: Model, call: str, *, follow_links: bool = False) -> Program:
    """``model`` itself where it is a Program, else what ``Program.load`` reads; ``call`` names the caller in errors."""
    from ..ir.program.program import Program

    if isinstance(model, Program):
        return model
    if model is None:
        raise UsageError(f"{call} was given no model", wanted="a path, a Program, or a model in memory")
    with collector_off():
        return Program.load(model, follow_links=follow_links)  # pyright: ignore[reportArgumentType]


def place_of(model: Model, program: Program) -> str:
    """What a result calls the model: its path, else ``<memory>``."""
    if isinstance(model, str | os.PathLike):
        return os.fspath(model).replace(os.sep, "/")
    return program.source.as_posix() if program.source is not None else "<memory>"


def path_of(path: object, call: str, name: str) -> None:
    """Raises UsageError where an option that names a file is no path."""
    expect((str, os.PathLike), path, f"{call}({name}=)", "Give the path of a file.")
