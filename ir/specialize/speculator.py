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


def as_configured(folders: Iterable[Path], ks: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The speculative lengths ``ks`` as the model's own configuration leaves them, and what that dropped, as text."""
    own = own_speculative_tokens(folders)
    dropped = [k for k in ks if own is not None and k not in (0, own.tokens)]
    if own is None or not dropped:
        return ks, ()
    given = ", ".join(f"K={k}" for k in dropped)
    text = f"the model's own {own.file} proposes {own.tokens} tokens, which overrides {given}: dropped"
    return (*(k for k in ks if k == 0), own.tokens), (text,)


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
