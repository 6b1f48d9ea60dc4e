"""Manifests are read by the strict reader, and JSON is laid out as the target compiler's own writer does."""

from __future__ import annotations

import json
from typing import cast

from ..core.specialization import ManifestInvalid
from ..serialization.strict import StrictReader

READER = StrictReader("a manifest", ManifestInvalid)
load_json, load_yaml, read_text = READER.load_json, READER.load_yaml, READER.read_text


def load_list(text: str, key: str, *, where: str) -> list[object]:
    """The list of a file that holds ``{key: [ … ]}`` and nothing else; ManifestInvalid for any other."""
    data: object = load_json(text, where=where)
    kind = type(data).__name__
    fields = cast("dict[str, object]", data) if isinstance(data, dict) else {}
    found = fields.get(key)
    if len(fields) != 1 or not isinstance(found, list):
        raise ManifestInvalid(
            f"holds no {key}, or more than that",
            where=where,
            found=", ".join(map(repr, fields))[:120] or kind,
            wanted=f'{{"{key}": [ … ]}}',
        )
    return cast("list[object]", found)


def dump_json(value: object) -> str:
    """JSON as the target compiler's own writer lays it out: four spaces, keys sorted, no space around separators."""
    return json.dumps(value, indent=4, separators=(",", ":"), sort_keys=True, allow_nan=False)
