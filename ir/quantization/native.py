"""This package's own form of encodings holds everything that a table does, in JSON, one entry a tensor."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ..core.encoding import Calibration, EncodingsInvalid, EncodingTable
from ..serialization.encoding_entries import from_entries, to_entries
from ..serialization.encoding_fields import Fields

FORMAT = "onnx-llm-passes/encodings"
SCHEMA_VERSION = 1
_OWN = frozenset(("format", "schema_version", "calibration", "tensors"))


def matches(document: object) -> bool:
    """True for a file of ours."""
    return isinstance(document, dict) and document.get("format") == FORMAT  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def read(document: object, where: str) -> EncodingTable:
    """The table of a file of ours; EncodingsInvalid names the tensor."""
    fields = Fields(document, where)
    if fields.whole("schema_version") != SCHEMA_VERSION:
        raise EncodingsInvalid(
            "is of another schema", where=where, found=fields.get("schema_version"), wanted=SCHEMA_VERSION
        )
    table = EncodingTable.of(from_entries(fields.mapping("tensors"), where))
    if fields.get("calibration") is not None:
        table.calibration = _calibration(Fields(fields.get("calibration"), f"{where}, calibration"))
    table.extra = {key: fields.get(key) for key in fields.names() if key not in _OWN}
    return table


def write(table: EncodingTable) -> dict[str, Any]:
    """The document of a table."""
    kept = {key: value for key, value in table.extra.items() if key not in _OWN}
    if table.calibration is not None:
        kept["calibration"] = table.calibration.to_json()
    return {"format": FORMAT, "schema_version": SCHEMA_VERSION, **kept, "tensors": to_entries(table.tensors())}


def _calibration(fields: Fields) -> Calibration:
    """How the ranges of a file were found; a fact that the file does not tell is as it is in an empty calibration."""
    fields.only([field.name for field in dataclasses.fields(Calibration)])
    facts: dict[str, Any] = {}
    for name in fields.names():
        facts[name] = _READ_FACT.get(name, Fields.whole)(fields, name)
    return Calibration(**facts)


def _names(fields: Fields, key: str) -> tuple[str, ...]:
    return tuple(map(str, fields.listed(key)))


_READ_FACT: dict[str, Callable[[Fields, str], object]] = {
    **dict.fromkeys(("graph", "method", "k_envelope"), Fields.text),
    "clamped": _names,
}
