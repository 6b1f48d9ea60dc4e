"""This package's own form of encodings holds everything that a table does, in JSON, one entry a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from .base import Encoding, EncodingsInvalid, EncodingTable, Evidence, Kind, Number, check_encoding
from .fields import Fields, as_number, as_whole, flatten, nest

FORMAT = "onnx-llm-passes/encodings"
SCHEMA_VERSION = 1
_FIELDS = (
    *("scale", "zero_point", "bits", "signed", "symmetric", "axis", "block", "kind", "number"),
    *("low", "high", "levels", "wide_bits"),
)
_Enum = TypeVar("_Enum", Kind, Number)


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
    table = from_entries(fields.mapping("tensors"), where)
    table.extra = {key: fields.get(key) for key in fields.names() if key not in ("format", "schema_version", "tensors")}
    return table


def write(table: EncodingTable) -> dict[str, Any]:
    """The document of a table."""
    own = {key: value for key, value in table.extra.items() if key not in ("file_format", "tensors")}
    return {"format": FORMAT, "schema_version": SCHEMA_VERSION, **own, "tensors": to_entries(table)}


def to_entries(table: EncodingTable) -> dict[str, Any]:
    """Name -> what the table says of it, as JSON: what a program carries."""
    entries: dict[str, Any] = {}
    for name in table.names():
        entry: dict[str, Any] = {}
        if name in table.encodings:
            entry["encoding"] = to_fields(table.encodings[name])
        if name in table.ranges:
            seen = table.ranges[name]
            entry["range"] = [seen.low, seen.high] if seen.low <= seen.high else None
            entry |= {"dtype": seen.dtype} if seen.dtype != "float32" else {}
            entry |= {"more": seen.more} if seen.more else {}
        entries[name] = entry
    return entries


def from_entries(entries: Mapping[str, Any], where: str) -> EncodingTable:
    """The table out of such entries; EncodingsInvalid names the tensor."""
    table = EncodingTable()
    for name, entry in entries.items():
        at = f"{where}, tensor {name!r}"
        fields = Fields(entry, at)
        fields.only(("encoding", "range", "dtype", "more"))
        if fields.get("encoding") is not None:
            table.encodings[name] = from_fields(name, fields.get("encoding"), at)
        if "range" in fields.names():
            table.ranges[name] = _evidence(fields, at)
    return table


def _evidence(fields: Fields, at: str) -> Evidence:
    if fields.get("range") is None:
        return Evidence(float("inf"), float("-inf"))
    bounds = fields.listed("range")
    if len(bounds) != 2:
        raise EncodingsInvalid("range is wrong", where=at, found=f"{len(bounds)} numbers", wanted="two")
    low, high = (as_number(bound, f"{at}, range") for bound in bounds)
    if low > high:
        raise EncodingsInvalid("range is the wrong way round", where=at, found=f"{low:g} to {high:g}")
    dtype = fields.text("dtype") if fields.get("dtype") is not None else "float32"
    return Evidence(low, high, dtype, fields.mapping("more") if fields.get("more") is not None else {})


def to_fields(e: Encoding) -> dict[str, Any]:
    """One encoding as JSON; what is not set is left out."""
    fields: dict[str, Any] = {"bits": e.bits}
    if e.number is Number.INT:
        fields |= {"scale": nest(e.scale, e.shape), "zero_point": nest(e.zero_point, e.shape)}
        fields |= {"signed": e.signed, "symmetric": e.symmetric}
    else:
        fields["number"] = e.number.value
    optional: dict[str, Any] = {
        "axis": e.axis,
        "block": e.block,
        "kind": e.kind.value if e.kind else None,
        "low": list(e.low) if e.low is not None else None,
        "high": list(e.high) if e.high is not None else None,
        "levels": nest(e.levels, e.levels_shape) if e.levels else None,
        "wide_bits": e.wide_bits,
    }
    return fields | {key: value for key, value in optional.items() if value is not None}


def from_fields(name: str, value: object, where: str) -> Encoding:
    """One encoding out of JSON; EncodingsInvalid where a field is unknown or wrong."""
    f = Fields(value, where)
    f.only(_FIELDS)
    number = _member(Number, f.get("number") or "int", where)
    scale, shape = flatten(f.get("scale"), where) if number is Number.INT else ([], ())
    zeros, zero_shape = flatten(f.get("zero_point"), where) if number is Number.INT else ([], ())
    levels, levels_shape = flatten(f.get("levels"), where) if f.get("levels") is not None else ([], ())
    if zero_shape != shape:
        raise EncodingsInvalid("zero points differ in number from the scales", where=where)
    encoding = Encoding(
        scale=tuple(as_number(item, f"{where}, scale") for item in scale),
        zero_point=tuple(as_whole(item, f"{where}, zero_point") for item in zeros),
        bits=f.whole("bits"),
        signed=f.get("signed") is True,
        symmetric=f.get("symmetric") is True,
        shape=shape,
        axis=_whole_or_none(f, "axis"),
        block=_whole_or_none(f, "block"),
        kind=_member(Kind, f.get("kind"), where) if f.get("kind") is not None else None,
        number=number,
        low=_numbers(f, "low"),
        high=_numbers(f, "high"),
        levels=tuple(as_whole(item, f"{where}, levels") for item in levels),
        levels_shape=levels_shape,
        wide_bits=_whole_or_none(f, "wide_bits"),
    )
    return check_encoding(name, encoding, where=where)


def _whole_or_none(fields: Fields, key: str) -> int | None:
    return fields.whole(key) if fields.get(key) is not None else None


def _numbers(fields: Fields, key: str) -> tuple[float, ...] | None:
    if fields.get(key) is None:
        return None
    return tuple(as_number(item, f"{fields.where}, {key}") for item in fields.listed(key))


def _member(kind: type[_Enum], value: object, where: str) -> _Enum:
    for member in kind:
        if member.value == value:
            return member
    raise EncodingsInvalid(
        "is none of the words", where=where, found=repr(value)[:80], wanted=", ".join(str(m.value) for m in kind)
    )
