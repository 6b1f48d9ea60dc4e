"""One tensor's encoding, or the range it was seen in, is read from JSON and written as it; so program.json holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from ..core.encoding import Encoding, EncodingsInvalid, Evidence, Kind, Number, TensorEncoding, check_encoding
from ..core.histogram import Histogram, unpacked
from .encoding_fields import Fields, as_number, as_whole, flatten, nest

_FIELDS = (
    *("scale", "zero_point", "bits", "signed", "symmetric", "axis", "block", "kind", "number"),
    *("low", "high", "levels", "wide_bits"),
)
_Enum = TypeVar("_Enum", Kind, Number)


def to_entries(tensors: Mapping[str, TensorEncoding]) -> dict[str, Any]:
    """Name -> what is known of the tensor, as JSON."""
    return {name: _entry(tensor) for name, tensor in tensors.items()}


def _entry(tensor: TensorEncoding) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    if tensor.encoding is not None:
        entry["encoding"] = to_fields(tensor.encoding)
    if (seen := tensor.range) is not None:
        entry["range"] = [seen.low, seen.high] if seen.low <= seen.high else None
        entry |= {"dtype": seen.dtype} if seen.dtype != "float32" else {}
        entry |= {"more": seen.more} if seen.more else {}
        entry |= {"method": seen.method} if seen.method else {}
        entry |= {"histogram": _histogram(seen.histogram)} if seen.histogram is not None else {}
    return entry


def _histogram(held: Histogram) -> dict[str, Any]:
    return {"edges": [held.first, held.last], "bins": held.bins, "counts": held.text()}


def from_entries(entries: Mapping[str, Any], where: str) -> dict[str, TensorEncoding]:
    """What such entries say of each tensor; EncodingsInvalid names the tensor."""
    return {name: _tensor(name, entry, f"{where}, tensor {name!r}") for name, entry in entries.items()}


def _tensor(name: str, entry: object, at: str) -> TensorEncoding:
    fields = Fields(entry, at)
    fields.only(("encoding", "range", "dtype", "more", "method", "histogram"))
    held = fields.get("encoding")
    encoding = from_fields(name, held, at) if held is not None else None
    return TensorEncoding(encoding, _evidence(fields, at) if "range" in fields.names() else None)


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
    more = fields.mapping("more") if fields.get("more") is not None else {}
    method = fields.text("method") if fields.get("method") is not None else ""
    return Evidence(low, high, dtype, more, method, _read_histogram(fields, at))


def _read_histogram(fields: Fields, at: str) -> Histogram | None:
    if fields.get("histogram") is None:
        return None
    held = Fields(fields.get("histogram"), f"{at}, histogram")
    held.only(("edges", "bins", "counts"))
    edges = [as_number(edge, f"{held.where}, edges") for edge in held.listed("edges")]
    try:
        first, last = edges
        return unpacked(first, last, held.whole("bins"), held.text("counts"))
    except ValueError as error:
        raise EncodingsInvalid("holds no counts", where=held.where, found=str(error)) from None


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
    return check_encoding(name, encoding, where=where, turned=True)


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
