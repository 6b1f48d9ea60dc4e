"""Reads how many tokens a model's own speculative configuration proposes, where it brings one beside its graph."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

MAX_BYTES = 1 << 20
MAX_TOKENS = 1 << 16
_FILES = ("speculator_config.json", "config.json")
_SECTIONS = ("", "speculative_config", "speculator_config", "speculators_config")
_KEYS = ("num_speculative_tokens", "n_predict")


@dataclass(frozen=True)
class OwnTokens:
    """The number of speculative tokens that the model fixes, and the file that says so."""

    tokens: int
    file: str


def own_speculative_tokens(folders: Iterable[Path]) -> OwnTokens | None:
    """What a ``speculator_config.json`` or ``config.json`` in one of ``folders`` says; None where none does."""
    for folder in dict.fromkeys(folders):
        for name in _FILES:
            found = _tokens_in(_read(folder / name))
            if found is not None:
                return OwnTokens(found, name)
    return None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return {}
        content: object = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return cast("Mapping[str, Any]", content) if isinstance(content, dict) else {}


def _tokens_in(config: Mapping[str, Any]) -> int | None:
    for section in _SECTIONS:
        part: object = config.get(section) if section else config
        if not isinstance(part, dict):
            continue
        for key in _KEYS:
            number: object = cast("Mapping[str, object]", part).get(key)
            if type(number) is int and 0 < number <= MAX_TOKENS:
                return number
    return None
