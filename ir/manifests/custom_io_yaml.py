"""``custom_io.yaml`` lists the precision in which inputs and outputs are passed, byte for byte as compilers read it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from ..core.specialization import ManifestInvalid
from .strict import load_yaml

CUSTOM_IO = "custom_io.yaml"
PRECISIONS = ("mxint8", "int8", "float16", "bfloat16", "float32")
_PLAIN = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_./:-]*(?<!:)")
_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}  # YAML takes these for something else


def write_custom_io(entries: Mapping[str, str]) -> str:
    """The file: `` - IOName: <name>``, three spaces and ``Precision: <precision>``, a blank line after each entry."""
    return "".join(
        f" - IOName: {_scalar(name)}\n   Precision: {_precision(name, entries[name])}\n\n" for name in entries
    )


def read_custom_io(text: str, *, where: str = CUSTOM_IO) -> dict[str, str]:
    """Name -> precision; ManifestInvalid names the entry that is none, stands twice, or has an unknown precision."""
    data = load_yaml(text, where=where)
    if data is not None and not isinstance(data, list):
        raise ManifestInvalid("is no list of entries", where=where, found=type(data).__name__)
    found: dict[str, str] = {}
    for index, entry in enumerate(cast("list[Any]", data or [])):
        name, precision = _entry(entry, f"{where}, entry {index}")
        if name in found:
            raise ManifestInvalid("stands twice", where=f"{where}, entry {index}", found=name)
        found[name] = _precision(name, precision)
    return found


def _entry(entry: Any, where: str) -> tuple[str, str]:
    fields = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    if fields.keys() != {"IOName", "Precision"} or not all(isinstance(v, str) and v for v in fields.values()):
        raise ManifestInvalid("is no entry", where=where, found=repr(fields)[:80], wanted="IOName and Precision")
    return fields["IOName"], fields["Precision"]


def _precision(name: str, precision: str) -> str:
    if precision not in PRECISIONS:
        wanted = ", ".join(PRECISIONS)
        raise ManifestInvalid(
            "is no precision", where=f"custom I/O {name!r}", found=repr(precision)[:80], wanted=wanted
        )
    return precision


def _scalar(name: str) -> str:
    digits = name.replace(".", "").replace("_", "").isdigit()
    return (
        name
        if _PLAIN.fullmatch(name) and not digits and name.lower() not in _WORDS
        else f'"{"".join(map(_escaped, name))}"'
    )


def _escaped(char: str) -> str:
    return char if char.isprintable() and char not in '"\\' else f"\\U{ord(char):08x}"
