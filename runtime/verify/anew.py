"""The two programs of a verification are two: an original that a pass changed in place is read anew from its files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...ir.core.errors import OnnxPassesError, UsageError, expect
from ...ir.program.program import Program

_HINT = "Program.load(path) reads a file or folder."


def apart(original: Program, result: Program) -> Program:
    """The original, as its files have it where it shares graphs with the result.

    `PassManager.run` changes a program in place and returns it: compared with itself it would be equal whatever the
    passes did. Raises UsageError where no file tells what it was.
    """
    for program, call in ((original, "verify's original"), (result, "verify's result")):
        expect(Program, program, call, _HINT)
    ours, theirs = ({id(model) for model in program.graphs.values()} for program in (original, result))
    if not ours & theirs:
        return original
    lost = _lost(original)
    if lost:
        raise UsageError(
            "original and result are one program, which would be compared with itself",
            found=lost,
            wanted="two programs",
            hint="PassManager.run changes its program: keep the original by Program(graphs={name: model.clone(), …}), "
            "or load it a second time.",
        )
    assert original.source is not None, "what has files was loaded from somewhere"
    return Program.load(original.source)


def _lost(program: Program) -> str:
    """Why the program's files do not tell what it was when it was loaded; empty where they do."""
    if program.source is None or not program.origins:
        return "a program that no file holds"
    for origin in program.origins:
        if _digest(origin.path) != origin.sha256:
            return f"{origin.path.name}, which was changed after it was loaded"
    try:
        Program.load(program.source)
    except OnnxPassesError as error:
        return error.what
    return ""


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
