"""Reading a manifest of any target: the form is told by its content, and everything else is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ..core.specialization import ManifestInvalid, Specialization, read_specialization
from ..serialization.index import INDEX_NAME
from . import get_target
from .custom_io_yaml import CUSTOM_IO, read_custom_io
from .qaic import SPECIALIZATIONS
from .strict import load_json, load_yaml, read_text


@dataclass(frozen=True)
class Reading:
    """What a file holds.

    Attributes:
        target: Whose form it is; empty for this package's own, and for a list of precisions.
        specializations: In the file's order, alike ones kept: that is for the proof to judge.
        tolerated: Symbols that the target takes though no graph has them.
        custom_io: The precisions of ``custom_io.yaml``, beside the file or the file itself.
    """

    target: str = ""
    specializations: tuple[Specialization, ...] = ()
    tolerated: frozenset[str] = frozenset()
    custom_io: Mapping[str, str] = field(default_factory=dict[str, str])


def read_manifest(path: Path) -> Reading:
    """The specializations, or precisions, of a file, or of the one in a folder; InputError or ManifestInvalid."""
    if path.is_dir():
        names = (SPECIALIZATIONS, INDEX_NAME)
        path = next((path / name for name in names if (path / name).is_file()), path / SPECIALIZATIONS)
    text, where = read_text(path), path.name
    is_yaml = path.suffix in (".yaml", ".yml")
    data = load_yaml(text, where=where) if is_yaml else load_json(text, where=where)
    if is_yaml and not isinstance(data, dict):
        return Reading(custom_io=read_custom_io(text, where=where))
    beside = path.with_name(CUSTOM_IO)
    listed = read_custom_io(read_text(beside), where=CUSTOM_IO) if beside.is_file() else {}
    name = "qnn" if is_yaml else next((name for name, test in _FORMS if test(data)), "qaic")
    if name == OWN:
        return Reading(specializations=_own(data), custom_io=listed)
    target = get_target(name)
    return Reading(name, tuple(target.read(text, where=where)), target.tolerated, listed)


OWN = "program"


def _entries(data: Any) -> list[Any]:
    found = cast("dict[str, Any]", data).get("specializations") if isinstance(data, dict) else None
    return cast("list[Any]", found) if isinstance(found, list) else []


def _have(data: Any, key: str) -> bool:
    return any(isinstance(entry, dict) and key in entry for entry in _entries(data))


_FORMS: tuple[tuple[str, Callable[[Any], bool]], ...] = (
    ("tensorrt", lambda data: isinstance(data, dict) and "profiles" in data),
    ("ort", lambda data: _have(data, "overrides")),
    (OWN, lambda data: _have(data, "binding")),
)


def _own(data: Any) -> tuple[Specialization, ...]:
    entries = _entries(data)
    if not all(isinstance(entry, dict) for entry in entries):
        raise ManifestInvalid("holds an entry that is no specialization", where="specializations")
    return tuple(read_specialization(entry, index) for index, entry in enumerate(entries))
