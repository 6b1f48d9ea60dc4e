"""The generative runtime's cache scales are one symmetric scale, or one a channel, for a layer's keys and values.

The file names layers, not tensors: until a graph tells the names, tensors are called ``layer 3 key``.
"""

from __future__ import annotations

import re
from typing import Any, cast

from ..core.encoding import Encoding, EncodingsInvalid, EncodingTable, Kind, check_encoding
from ..serialization.encoding_fields import Fields, as_number, as_whole

BITS = 8
_KINDS = {"key": "k_scales", "value": "v_scales"}
_NAME = re.compile(r"layer ([0-9]{1,6}) (key|value)")


def cache_name(layer: int, kind: str) -> str:
    """What the keys or values of a layer are called in a table that no graph has named yet."""
    return f"layer {layer} {kind}"


def layer_and_kind(name: str) -> tuple[int, str] | None:
    """The layer and kind that such a name tells, or None."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), match[2]) if match else None


def matches(document: object) -> bool:
    """True for scales of keys and values."""
    scales = cast("dict[str, Any]", document).get("scales") if isinstance(document, dict) else None
    return isinstance(scales, dict) and set(_KINDS.values()) <= set(cast("dict[str, Any]", scales))


def read(document: object, where: str) -> EncodingTable:
    """The table, symmetric 8-bit grids; EncodingsInvalid where layers stand twice or lack scales."""
    fields = Fields(document, where)
    scales = Fields(fields.mapping("scales"), f"{where}, scales")
    layers = [as_whole(item, f"{where}, layer_ids") for item in fields.listed("layer_ids")]
    if len(set(layers)) < len(layers):
        raise EncodingsInvalid("layer_ids names a layer twice", where=where)
    table = EncodingTable(extra={key: fields.get(key) for key in fields.names() if key not in ("scales", "layer_ids")})
    columns = {kind: scales.listed(key) for kind, key in _KINDS.items()}
    for kind, column in columns.items():
        if len(column) != len(layers):
            raise EncodingsInvalid(f"{_KINDS[kind]} misses layers", where=where, found=len(column), wanted=len(layers))
    for index, layer in enumerate(layers):
        for kind, column in columns.items():
            name = cache_name(layer, kind)
            table.encodings[name] = _decode(name, column[index], f"{where}, {_KINDS[kind]}[{index}]")
    return table


def _decode(name: str, value: object, where: str) -> Encoding:
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    scale = tuple(as_number(item, where) for item in items)
    shape = (len(scale),) if isinstance(value, list) else ()
    zeros = (0,) * len(scale)
    encoding = Encoding(scale, zeros, BITS, signed=True, symmetric=True, shape=shape, kind=Kind.ACTIVATION)
    return check_encoding(name, encoding, where=where)


def write(table: EncodingTable) -> dict[str, Any]:
    """The document of the entries named after layers; EncodingsInvalid where one is not symmetric or has no partner."""
    found = {place: name for name in table.encodings if (place := layer_and_kind(name)) is not None}
    layers = sorted({layer for layer, _ in found})
    columns: dict[str, list[Any]] = {key: [] for key in _KINDS.values()}
    for layer in layers:
        for kind, key in _KINDS.items():
            if (layer, kind) not in found:
                raise EncodingsInvalid(f"layer {layer} has no {kind} encoding")
            columns[key].append(_encode(found[layer, kind], table.encodings[found[layer, kind]]))
    return {"scales": columns, "layer_ids": layers, **table.own_extra("kv-scales")}


def _encode(name: str, e: Encoding) -> Any:
    if not e.symmetric or e.bits != BITS or len(e.shape) > 1 or any(zero != e.middle for zero in e.zero_point):
        raise EncodingsInvalid(f"{name}: the file holds symmetric {BITS}-bit scales alone", found=f"{e.bits} bits")
    return list(e.scale) if e.shape else e.scale[0]
