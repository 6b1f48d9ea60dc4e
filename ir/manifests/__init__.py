"""Target compilers' files are written and read here, one file a target; a further target is one file and one row."""

from __future__ import annotations

import importlib

from ..core.errors import UnknownNameError
from .base import Command, GraphInterface, Port, Target, entries_of, interface_of

TARGETS: dict[str, str] = {  # name in pipeline text -> module of this package, which has the target as TARGET
    "ort": "ort",
    "qaic": "qaic",
    "qaic-flat": "qaic_flat",
    "qnn": "qnn",
    "tensorrt": "tensorrt",
}


def get_target(name: str) -> Target:
    """The target of that name; UnknownNameError, with the nearest names, where there is none."""
    if name not in TARGETS:
        raise UnknownNameError("target", name, TARGETS, hint=f"There are {', '.join(sorted(TARGETS))}.")
    return importlib.import_module(f".{TARGETS[name]}", __package__).TARGET


__all__ = ["TARGETS", "Command", "GraphInterface", "Port", "Target", "entries_of", "get_target", "interface_of"]
