"""Reads the file of losses that ``onnx-passes sensitivity`` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...ir.core.errors import InputError
from ...ir.serialization.strict import StrictReader
from .sensitivity import Loss, Sensitivity

FIELDS = {"layer", "role", "bits", "weights", "sqnr", "kl"}


def read_sensitivity(file: Path) -> Sensitivity:
    """The losses of a file; InputError, naming it, where it holds none."""
    reader = StrictReader("what `sensitivity` wrote", InputError)
    document: Any = reader.load_json(reader.read_text(file), where=str(file))
    entries = document.get("losses") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(e, dict) and set(e) == FIELDS for e in entries):
        raise InputError("holds no losses", where=str(file), wanted="a file that `onnx-passes sensitivity` wrote")
    try:
        losses = [
            Loss(e["layer"], str(e["role"]), int(e["bits"]), int(e["weights"]), float(e["sqnr"]), float(e["kl"]))
            for e in entries
        ]
        sizes = (int(document.get(key, 0)) for key in ("tokens", "texts", "block"))
        return Sensitivity(losses, *sizes)
    except (TypeError, ValueError):
        raise InputError("holds a loss that is no number", where=str(file)) from None
