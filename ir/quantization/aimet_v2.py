"""AIMET 2.0.0 and 2.1.0 have one list of entries in the words of QuantizeLinear; 2.1.0 nests the scales of blocks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

from ..core.encoding import Encoding, EncodingsInvalid, EncodingTable, Number, check_encoding
from ..serialization.encoding_fields import Fields, as_number, as_whole, flatten, nest
from . import beside

VERSIONS = ("2.0.0", "2.1.0")
_FIELDS = (
    *("name", "output_dtype", "y_scale", "y_zero_point", "axis", "block_size"),
    *("per_block_int_scale", "per_channel_float_scale"),
)
_DTYPE = re.compile(r"(u?)int([0-9]{1,2})")
Scales = tuple[list[Any], tuple[int, ...], list[Any], tuple[int, ...]]  # scales, shape, block levels, shape


def matches(document: object) -> bool:
    """True for one list of all encodings."""
    return isinstance(document, dict) and isinstance(cast("dict[str, Any]", document).get("encodings"), list)


def read(document: object, where: str) -> EncodingTable:
    """The table; this format does not say whether a tensor is a weight. EncodingsInvalid names the tensor."""
    fields = Fields(document, where)
    if fields.text("version") not in VERSIONS:
        found = fields.get("version")
        raise EncodingsInvalid("has an unknown version", where=where, found=found, wanted=" or ".join(VERSIONS))
    table = EncodingTable()
    for index, entry in enumerate(fields.listed("encodings")):
        row = Fields(entry, f"{where}, encodings[{index}]")
        name = row.text("name")
        if name in table.encodings:
            raise EncodingsInvalid(f"{name!r} stands twice", where=row.where)
        row.where = f"{where}, tensor {name!r}"
        table.encodings[name] = _decode(name, row)
    beside.apply(table, fields.get(beside.KEY), where)
    known = {"version", "encodings", beside.KEY}
    table.extra = {key: fields.get(key) for key in fields.names() if key not in known}
    return table


def _decode(name: str, row: Fields) -> Encoding:
    row.only(_FIELDS)
    match = _DTYPE.fullmatch(row.text("output_dtype"))
    if match is None:
        raise EncodingsInvalid("is of no integer type", where=row.where, found=row.get("output_dtype"))
    scales, shape, levels, levels_shape = _scales(row)
    signed, bits = not match[1], int(match[2])
    zeros = [0] * len(scales)
    if row.get("y_zero_point") is not None:
        zeros, zero_shape = flatten(row.get("y_zero_point"), row.where)
        if zero_shape != shape:
            raise EncodingsInvalid("zero points differ in number from the scales", where=row.where)
    middle = 0 if signed else 1 << (min(bits, 32) - 1)
    whole = tuple(as_whole(item, f"{row.where}, y_zero_point") for item in zeros)
    encoding = Encoding(
        scale=tuple(as_number(item, f"{row.where}, y_scale") for item in scales),
        zero_point=whole,
        bits=bits,
        signed=signed,
        symmetric=all(zero == middle for zero in whole),
        shape=shape,
        axis=row.whole("axis") if row.get("axis") is not None else None,
        block=row.whole("block_size") if row.get("block_size") is not None else None,
        levels=tuple(as_whole(item, f"{row.where}, block scale") for item in levels),
        levels_shape=levels_shape,
    )
    return check_encoding(name, encoding, where=row.where)


def _scales(row: Fields) -> Scales:
    """The float scales and, where blocks have integer ones of their own, these."""
    given = row.get("y_scale")
    if isinstance(given, dict):
        return _nested(Fields(cast("object", given), f"{row.where}, y_scale"))
    if given is not None:
        return (*flatten(given, row.where), [], ())
    per_block = flatten(row.listed("per_block_int_scale"), row.where)
    return (*flatten(row.listed("per_channel_float_scale"), row.where), *per_block)


def _nested(scale: Fields) -> Scales:
    scale.only(("x", "x_scale", "axis"))  # an input_dtype says that the blocks' scales are floats: no grid of ours
    levels, levels_shape = flatten(scale.listed("x"), scale.where)
    scales, shape = flatten(scale.listed("x_scale"), scale.where)
    axis = scale.whole("axis")
    if len(shape) != 1 or not 0 <= axis < len(levels_shape):
        raise EncodingsInvalid("is no scale a channel", where=scale.where, found=f"axis {axis}, shape {list(shape)}")
    return scales, tuple(shape[0] if i == axis else 1 for i in range(len(levels_shape))), levels, levels_shape


def write_as(table: EncodingTable, version: str) -> dict[str, Any]:
    """The document; what the layout cannot say stands beside. EncodingsInvalid for a float encoding."""
    kept = table.own_extra(*(f"aimet-{known}" for known in VERSIONS))
    entries = [_encode(name, encoding, version) for name, encoding in table.encodings.items()]
    notes: dict[str, Any] = {}
    for entry, (name, encoding) in zip(entries, table.encodings.items(), strict=True):
        if changed := beside.differing(encoding, _decode(name, Fields(entry, name))):
            notes[name] = changed
    document = {**kept, "version": version, "encodings": entries}
    return document | ({beside.KEY: notes} if notes else {})


def _encode(name: str, e: Encoding, version: str) -> dict[str, Any]:
    if e.number is Number.FLOAT:
        raise EncodingsInvalid(f"tensor {name!r} stays a float of {e.bits} bits, which AIMET {version} cannot say")
    entry: dict[str, Any] = {"name": name, "output_dtype": f"{'' if e.signed else 'u'}int{e.bits}"}
    if not e.levels:
        entry["y_scale"] = nest(e.scale, e.shape)
    elif version == VERSIONS[0]:
        entry["per_block_int_scale"] = nest(e.levels, e.levels_shape)
        entry["per_channel_float_scale"] = nest(e.scale, e.shape)
    else:
        channel = _channel_axis(e.levels_shape, e.shape, e.axis)
        levels = nest(e.levels, e.levels_shape)
        entry["y_scale"] = {"x": levels, "x_scale": list(e.scale), "axis": channel}
    if any(e.zero_point):
        entry["y_zero_point"] = nest(e.zero_point, e.shape)
    return entry | {key: value for key, value in (("axis", e.axis), ("block_size", e.block)) if value is not None}


def _channel_axis(levels: Sequence[int], scales: Sequence[int], blocks: int | None) -> int:
    """The axis that the float scales vary along: not that of the blocks."""
    others = [axis for axis in range(len(levels)) if axis != blocks] or [0]
    return next((axis for axis in others if axis < len(scales) and scales[axis] > 1), others[0])
