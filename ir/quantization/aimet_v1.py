"""AIMET 1.0.0 has two lists of entries, each with its tensor's name, offsets counted on the unsigned grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from ..core.encoding import Encoding, EncodingsInvalid, EncodingTable, Kind, Number, check_encoding
from ..serialization.encoding_fields import Fields, as_number, as_whole
from . import beside
from .aimet_v0 import SECTIONS, offsets_of, section_of

VERSION = "1.0.0"
_FIELDS = (
    *("name", "enc_type", "dtype", "bw", "is_sym", "scale", "offset"),
    *("block_size", "compressed_bw", "per_block_int_scale"),
)


def matches(document: object) -> bool:
    """True for lists in the sections."""
    if not isinstance(document, dict):
        return False
    return any(isinstance(cast("dict[str, Any]", document).get(key), list) for key in SECTIONS)


def read(document: object, where: str) -> EncodingTable:
    """The table; this format does not say the axis of a per-channel encoding. EncodingsInvalid names the tensor."""
    fields = Fields(document, where)
    if fields.text("version") != VERSION:
        raise EncodingsInvalid(
            "has a version of another layout", where=where, found=fields.get("version"), wanted=VERSION
        )
    table = EncodingTable()
    for section, kind in SECTIONS.items():
        for index, entry in enumerate(fields.listed(section) if fields.get(section) is not None else []):
            row = Fields(entry, f"{where}, {section}[{index}]")
            name = row.text("name")
            if name in table.encodings:
                raise EncodingsInvalid(f"{name!r} stands twice", where=row.where)
            row.where = f"{where}, tensor {name!r}"
            table.encodings[name] = _decode(name, row, kind)
    beside.apply(table, fields.get(beside.KEY), where)
    known = {"version", beside.KEY, *SECTIONS}
    table.extra = {key: fields.get(key) for key in fields.names() if key not in known}
    return table


def _decode(name: str, row: Fields, kind: Kind) -> Encoding:
    row.only(_FIELDS)
    if row.text("dtype").upper() == "FLOAT":
        encoding = Encoding((), (), row.whole("bw"), kind=kind, number=Number.FLOAT)
        return check_encoding(name, encoding, where=row.where)
    style, wide = row.text("enc_type"), row.whole("bw")
    if style not in _STYLES:
        raise EncodingsInvalid("is of an unknown enc_type", where=row.where, found=style, wanted=", ".join(_STYLES))
    symmetric = row.get("is_sym") is True
    half = 1 << (wide - 1) if symmetric and 0 < wide < 64 else 0
    scale = tuple(as_number(item, f"{row.where}, scale") for item in row.listed("scale"))
    offsets = [as_whole(item, f"{row.where}, offset") for item in row.listed("offset")]
    blocks = row.listed("per_block_int_scale") if style == "LPBQ" else []
    levels = [as_whole(item, f"{row.where}, block scale") for item in blocks]
    if style == "PER_TENSOR" and len(scale) != 1:
        raise EncodingsInvalid("is PER_TENSOR with several scales", where=row.where, found=len(scale), wanted=1)
    encoding = Encoding(
        scale=scale,
        zero_point=tuple(-(offset + half) for offset in offsets),
        bits=row.whole("compressed_bw") if style == "LPBQ" else wide,
        signed=symmetric,
        symmetric=symmetric,
        shape=() if style == "PER_TENSOR" else (len(scale),),
        block=row.whole("block_size") if style in ("PER_BLOCK", "LPBQ") else None,
        kind=kind,
        levels=tuple(levels),
        levels_shape=(len(levels),) if levels else (),
        wide_bits=wide if style == "LPBQ" else None,
    )
    return check_encoding(name, encoding, where=row.where)


_STYLES = ("PER_TENSOR", "PER_CHANNEL", "PER_BLOCK", "LPBQ")


def write(table: EncodingTable) -> dict[str, Any]:
    """The document; what the layout cannot say (axes, mostly) stands beside."""
    own = table.file_format == f"aimet-{VERSION}"
    kept: dict[str, Any] = table.extra if own else {"quantizer_args": {}, "excluded_layers": []}
    document: dict[str, Any] = {"version": VERSION, **{section: [] for section in SECTIONS}, **kept}
    notes: dict[str, Any] = {}
    for name, encoding in table.encodings.items():
        section, kind = section_of(encoding)
        entry = _encode(name, encoding)
        document[section].append(entry)
        if changed := beside.differing(encoding, _decode(name, Fields(entry, name), kind)):
            notes[name] = changed
    return document | ({beside.KEY: notes} if notes else {})


def _encode(name: str, e: Encoding) -> dict[str, Any]:
    if e.number is Number.FLOAT:
        return {"name": name, "enc_type": "PER_TENSOR", "dtype": "FLOAT", "bw": e.bits}
    entry: dict[str, Any] = {"name": name, "enc_type": _style(e), "dtype": "INT", "bw": e.wide_bits or e.bits}
    scale, offsets = (_by_channel(e, numbers, e.shape) for numbers in (e.scale, offsets_of(e)))
    entry |= {"is_sym": e.symmetric, "scale": scale, "offset": offsets}
    if e.block is not None:
        entry["block_size"] = e.block
    if e.levels:
        entry |= {"compressed_bw": e.bits, "per_block_int_scale": _by_channel(e, e.levels, e.levels_shape)}
    return entry


def _by_channel(e: Encoding, numbers: Sequence[Any], shape: Sequence[int]) -> list[Any]:
    """The numbers as the format lists them: a channel's blocks together, also where the weight's blocks lie first."""
    if e.block is None or e.axis != 0 or len(shape) != 2:
        return list(numbers)
    blocks, channels = shape
    return [numbers[block * channels + channel] for channel in range(channels) for block in range(blocks)]


def _style(e: Encoding) -> str:
    if e.levels:
        return "LPBQ"
    if e.block is not None:
        return "PER_BLOCK"
    return "PER_CHANNEL" if e.shape else "PER_TENSOR"
