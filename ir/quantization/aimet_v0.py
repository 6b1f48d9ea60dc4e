"""AIMET 0.6.1 and QNN overrides have two objects, tensor name -> a list with one entry a channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from ..core.encoding import Encoding, EncodingsInvalid, EncodingTable, Kind, Number, check_encoding
from ..serialization.encoding_fields import Fields
from . import beside

VERSION = "0.6.1"
SECTIONS = {"activation_encodings": Kind.ACTIVATION, "param_encodings": Kind.PARAM}
_FIELDS = ("bitwidth", "dtype", "is_symmetric", "max", "min", "offset", "scale")
_TRUTH = {"True": True, "False": False, "true": True, "false": False, True: True, False: False}


def matches(document: object) -> bool:
    """True for the version, or for lists in the sections."""
    if not isinstance(document, dict):
        return False
    sections = [cast("dict[str, Any]", document).get(key) for key in SECTIONS]
    return any(isinstance(section, dict) for section in sections)


def read(document: object, where: str) -> EncodingTable:
    """The table; this format does not say the axis of a per-channel encoding. EncodingsInvalid names the tensor."""
    fields = Fields(document, where)
    version = fields.get("version")
    if version is not None and version != VERSION:
        raise EncodingsInvalid("has a version of another layout", where=where, found=version, wanted=VERSION)
    table = EncodingTable()
    for section, kind in SECTIONS.items():
        for name, entries in (fields.mapping(section) if fields.get(section) is not None else {}).items():
            at = f"{where}, tensor {name!r}"
            if name in table.encodings:
                raise EncodingsInvalid("stands in both sections", where=at)
            table.encodings[name] = _decode(name, entries, kind, at)
    beside.apply(table, fields.get(beside.KEY), where)
    known = {"version", beside.KEY, *SECTIONS}
    table.extra = {key: fields.get(key) for key in fields.names() if key not in known}
    return table


def _decode(name: str, entries: object, kind: Kind, where: str) -> Encoding:
    if not isinstance(entries, list) or not entries:
        raise EncodingsInvalid("is no list of encodings", where=where, found=repr(cast("object", entries))[:80])
    rows = [Fields(entry, where) for entry in cast("list[object]", entries)]
    for row in rows:
        row.only(_FIELDS)
    if rows[0].get("dtype") == "float":
        return check_encoding(name, Encoding((), (), rows[0].whole("bitwidth"), kind=kind, number=Number.FLOAT))
    bits, symmetric = _same(rows, "bitwidth", where), _truth(rows[0], where)
    half = 1 << (bits - 1) if symmetric and 0 < bits < 64 else 0
    encoding = Encoding(
        scale=tuple(row.number("scale") for row in rows),
        zero_point=tuple(-(row.whole("offset") + half) for row in rows),
        bits=bits,
        signed=symmetric,
        symmetric=symmetric,
        shape=(len(rows),) if len(rows) > 1 else (),
        kind=kind,
    )
    return _with_bounds(check_encoding(name, encoding, where=where), rows)


def _with_bounds(encoding: Encoding, rows: Sequence[Fields]) -> Encoding:
    """Keeps the stated smallest and largest numbers where they are not what scale and offset give."""
    from dataclasses import replace

    if any(row.get("min") is None or row.get("max") is None for row in rows):
        return encoding
    low, high = (tuple(row.number(key) for row in rows) for key in ("min", "max"))
    return encoding if (low, high) == encoding.span() else replace(encoding, low=low, high=high)


def _same(rows: Sequence[Fields], key: str, where: str) -> int:
    values = {row.whole(key) for row in rows}
    if len(values) > 1:
        raise EncodingsInvalid(f"has channels of different {key}", where=where, found=", ".join(map(str, values)))
    return values.pop()


def _truth(row: Fields, where: str) -> bool:
    value = row.get("is_symmetric")
    if not isinstance(value, str | bool) or value not in _TRUTH:
        raise EncodingsInvalid("is_symmetric is neither True nor False", where=where, found=repr(value)[:40])
    return _TRUTH[value]


def write(table: EncodingTable) -> dict[str, Any]:
    """The document; what the layout cannot say stands beside. EncodingsInvalid for scales of blocks."""
    kept = table.own_extra(f"aimet-{VERSION}", "qnn-overrides")
    document: dict[str, Any] = {"version": VERSION, **{section: {} for section in SECTIONS}, **kept}
    notes: dict[str, Any] = {}
    for name, encoding in table.encodings.items():
        section, kind = section_of(encoding)
        entries = _encode(name, encoding)
        document[section][name] = entries
        if changed := beside.differing(encoding, _decode(name, entries, kind, name)):
            notes[name] = changed
    return document | ({beside.KEY: notes} if notes else {})


def write_overrides(table: EncodingTable) -> dict[str, Any]:
    """The same without a version, as QNN's converter takes it."""
    document = write(table)
    return {key: value for key, value in document.items() if key != "version"}


def section_of(encoding: Encoding) -> tuple[str, Kind]:
    """Where an encoding belongs; one that does not tell is a weight's where it has an axis."""
    kind = encoding.kind or (Kind.ACTIVATION if encoding.per_tensor else Kind.PARAM)
    return next(section for section, of in SECTIONS.items() if of is kind), kind


def offsets_of(encoding: Encoding) -> list[int]:
    """The zero points as these formats count them: from the unsigned grid, negated."""
    half = 1 << ((encoding.wide_bits or encoding.bits) - 1)
    return [-(zero + half) if encoding.signed else -zero for zero in encoding.zero_point]


def _encode(name: str, e: Encoding) -> list[dict[str, Any]]:
    if e.number is Number.FLOAT:
        return [{"bitwidth": e.bits, "dtype": "float"}]
    if e.levels or e.block is not None or len(e.shape) > 1:
        raise EncodingsInvalid(f"tensor {name!r} has scales of blocks, which AIMET {VERSION} cannot say")
    low, high = (e.low, e.high) if e.low is not None and e.high is not None else e.span()
    symmetric = str(e.symmetric)
    return [
        {
            "bitwidth": e.bits,
            "dtype": "int",
            "is_symmetric": symmetric,
            "max": high[i],
            "min": low[i],
            "offset": offset,
            "scale": e.scale[i],
        }
        for i, offset in enumerate(offsets_of(e))
    ]
