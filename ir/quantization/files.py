"""The format of an encodings file is recognised; each format is read and written by one function."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..core.encoding import EncodingsInvalid, EncodingTable
from ..core.errors import UnknownNameError
from ..serialization.encoding_fields import READER
from . import aimet_v0, aimet_v1, aimet_v2, kv_scales, native, ort


class Format(NamedTuple):
    """How one layout is known, read and written."""

    matches: Callable[[object], bool]
    read: Callable[[object, str], EncodingTable]
    write: Callable[[EncodingTable], dict[str, Any]]


def _versioned(version: str) -> Callable[[object], bool]:
    def matches(document: object) -> bool:
        return aimet_v2.matches(document) and isinstance(document, dict) and document.get("version") == version  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]

    return matches


def _overrides(document: object) -> bool:
    return aimet_v0.matches(document) and isinstance(document, dict) and "version" not in document


FORMATS: dict[str, Format] = {  # the first that matches reads
    "native": Format(native.matches, native.read, native.write),
    "ort": Format(ort.matches, ort.read, ort.write),
    "kv-scales": Format(kv_scales.matches, kv_scales.read, kv_scales.write),
    "aimet-1.0.0": Format(aimet_v1.matches, aimet_v1.read, aimet_v1.write),
    "qnn-overrides": Format(_overrides, aimet_v0.read, aimet_v0.write_overrides),
    "aimet-0.6.1": Format(aimet_v0.matches, aimet_v0.read, aimet_v0.write),
    "aimet-2.1.0": Format(_versioned("2.1.0"), aimet_v2.read, partial(aimet_v2.write_as, version="2.1.0")),
    "aimet-2.0.0": Format(aimet_v2.matches, aimet_v2.read, partial(aimet_v2.write_as, version="2.0.0")),
}


def read_encodings(path: Path) -> EncodingTable:
    """The table that a file of any known format holds; EncodingsInvalid says the line or the tensor that is wrong."""
    return parse_encodings(READER.read_text(path), where=str(path))


def parse_encodings(text: str, *, where: str = "encodings") -> EncodingTable:
    """As ``read_encodings``, out of a text; ``file_format`` says which format it was."""
    document = READER.load_json(text, where=where)
    for name, form in FORMATS.items():
        if form.matches(document):
            table = form.read(document, where)
            table.file_format = name
            return table
    found = ", ".join(map(str, document))[:120] if isinstance(document, dict) else type(document).__name__  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    raise EncodingsInvalid(
        "is no encodings file of a known layout", where=where, found=found, wanted=", ".join(FORMATS)
    )


def print_encodings(table: EncodingTable, form: str = "native") -> str:
    """The text of a table in that format; UnknownNameError for a format there is not."""
    if form not in FORMATS:
        raise UnknownNameError("encodings format", form, FORMATS)
    return json.dumps(FORMATS[form].write(table), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
