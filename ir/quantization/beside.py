"""What a foreign format cannot say of an encoding stands in the same file under a key that other readers pass over."""

from __future__ import annotations

from typing import Any

from ..core.encoding import Encoding, EncodingTable
from ..serialization.encoding_entries import from_fields, to_fields
from ..serialization.encoding_fields import Fields

KEY = "onnx_llm_passes"


def differing(encoding: Encoding, reread: Encoding) -> dict[str, Any]:
    """The fields in which what the format gives back is not what was written; None for one that must go."""
    wanted, found = to_fields(encoding), to_fields(reread)
    changed = {key: value for key, value in wanted.items() if found.get(key) != value}
    return changed | {key: None for key in found if key not in wanted}


def apply(table: EncodingTable, beside: object, where: str) -> None:
    """Completes the table's encodings by what stands beside them; an unknown tensor or field is refused."""
    if beside is None:
        return
    fields = Fields(beside, f"{where}, {KEY}")
    fields.only(table.encodings)
    for name in fields.names():
        at = f"{where}, {KEY}, tensor {name!r}"
        changes = Fields(fields.get(name), at)
        whole = to_fields(table.encodings[name]) | {key: changes.get(key) for key in changes.names()}
        kept = {key: value for key, value in whole.items() if value is not None}
        table.encodings[name] = from_fields(name, kept, at)
