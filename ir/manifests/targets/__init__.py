"""Operator tables: what each target's compiler takes, by name."""

from __future__ import annotations

import importlib

from ...core.errors import UnknownNameError
from .base import Rule, Source, TargetTable, introduced, spelled

TABLES: dict[str, str] = {
    "iree": "iree",
    "openvino": "openvino",
    "ort": "ort",
    "qaic": "qaic",
    "qaic-flat": "qaic",
    "qnn": "qnn",
    "standard": "standard",
    "tensorrt": "tensorrt",
}
"""Target -> module of this package that holds its ``TABLE``."""


def table_of(target: str) -> TargetTable:
    """The table of a target; raises UnknownNameError."""
    if target not in TABLES:
        raise UnknownNameError("target", target, TABLES, hint=f"There are {', '.join(sorted(TABLES))}.")
    return importlib.import_module(f".{TABLES[target]}", __package__).TABLE


def has_table(target: str) -> bool:
    """Whether anything is known of what a target takes."""
    return target in TABLES


__all__ = ["TABLES", "Rule", "Source", "TargetTable", "has_table", "introduced", "spelled", "table_of"]
