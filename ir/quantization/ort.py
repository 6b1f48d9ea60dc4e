"""onnxruntime's calibration cache holds watched ranges by tensor name, as its quantizer saves and loads them."""

from __future__ import annotations

from typing import Any, cast

from ..core.encoding import EncodingsInvalid, EncodingTable, Evidence
from ..serialization.encoding_fields import Fields, as_number, flatten

METHODS = ("MinMax", "Entropy", "Percentile", "Distribution")


def matches(document: object) -> bool:
    """True for a TensorsData."""
    return isinstance(document, dict) and cast("dict[str, Any]", document).get("CLS") == "TensorsData"


def read(document: object, where: str) -> EncodingTable:
    """The ranges; EncodingsInvalid names the tensor. Histograms are kept as they stand."""
    fields = Fields(document, where)
    table = EncodingTable()
    for name, entry in fields.mapping("data").items():
        row = Fields(entry, f"{where}, tensor {name!r}")
        row.only(("lowest", "highest", "hist", "hist_edges", "bins", "avg", "std", "CLS"))
        low, dtype = _bound(row, "lowest")
        high, _ = _bound(row, "highest")
        table.ranges[name] = Evidence(min(low), max(high), dtype, {"ort": entry})
    table.extra = {key: fields.get(key) for key in fields.names() if key not in ("CLS", "data")}
    return table


def _bound(row: Fields, key: str) -> tuple[list[float], str]:
    value, dtype = row.get(key), "float32"
    if isinstance(value, dict):
        array = Fields(cast("object", value), f"{row.where}, {key}")
        value, dtype = array.get("data"), array.text("dtype")
    leaves, _ = flatten(value, row.where)
    numbers = [as_number(leaf, f"{row.where}, {key}") for leaf in leaves]
    if not numbers:
        raise EncodingsInvalid(f"{key} is empty", where=row.where)
    return numbers, dtype


def write(table: EncodingTable) -> dict[str, Any]:
    """The document of the table's ranges; those of encodings alone are what their grids cover."""
    from .grid import evidence_of

    own = table.own_extra("ort")
    method = own.get("calibration_method", {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"})
    data: dict[str, Any] = {}
    for name in table.names():
        seen = table.ranges.get(name)
        if seen is None and table.encodings[name].per_tensor and table.encodings[name].scale:
            seen = evidence_of(table.encodings[name])
        if seen is not None and seen.low <= seen.high:
            data[name] = _entry(seen)
    kept = {key: value for key, value in own.items() if key != "calibration_method"}
    return {"CLS": "TensorsData", "data": data, "calibration_method": method, **({"smooth_quant": False} | kept)}


def _entry(seen: Evidence) -> dict[str, Any]:
    if "ort" in seen.more:
        stored = cast("dict[str, Any]", seen.more["ort"])
        row = Fields(stored, "stored")
        if (min(_bound(row, "lowest")[0]), max(_bound(row, "highest")[0])) == (seen.low, seen.high):
            return stored
    dtype = seen.dtype if seen.dtype in ("float16", "float32") else "float32"
    low, high = ({"data": [bound], "dtype": dtype, "CLS": "numpy.array"} for bound in (seen.low, seen.high))
    return {"lowest": low, "highest": high, "CLS": "TensorData"}
