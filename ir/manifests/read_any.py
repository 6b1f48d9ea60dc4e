"""A manifest of any target is read: each target recognises its own form by the content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from ..core.specialization import ManifestInvalid, Specialization, read_specialization, refuse_doubled
from ..serialization.index import INDEX_NAME
from . import TARGETS, Target, entries_of, get_target
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
        path = _in_folder(path)
    text, where = read_text(path), path.name
    is_yaml = path.suffix in (".yaml", ".yml")
    data: object = load_yaml(text, where=where) if is_yaml else load_json(text, where=where)
    if is_yaml and not _is_object(data):
        return Reading(custom_io=read_custom_io(text, where=where))
    beside = path.with_name(CUSTOM_IO)
    listed = read_custom_io(read_text(beside), where=CUSTOM_IO) if beside.is_file() else {}
    if _is_own(data):
        return Reading(specializations=_own(data), custom_io=listed)
    target = _target_of(data, where)
    found = tuple(target.read(text, where=where))
    refuse_doubled(item.name for item in found)
    return Reading(target.name, found, target.tolerated, listed)


def _in_folder(folder: Path) -> Path:
    """The file of a target, else the program's own index, else the name that a user most likely meant."""
    names = [*dict.fromkeys(target.file for target in _targets()), INDEX_NAME]
    return next((folder / name for name in names if (folder / name).is_file()), folder / SPECIALIZATIONS)


def _target_of(data: object, where: str) -> Target:
    """The target whose form the content has, else the one whose name the file has: its reader says what is wrong."""
    targets = _targets()
    named = (target for target in targets if f".{where}".endswith(f".{target.file}"))
    found = next((target for target in targets if target.matches(data)), next(named, None))
    if found is None:
        keys = ", ".join(map(repr, cast("dict[str, object]", data))) if isinstance(data, dict) else type(data).__name__
        wanted = "the form of " + ", ".join(f"{target.file} ({target.name})" for target in targets)
        raise ManifestInvalid("is no target's manifest", where=where, found=keys[:120], wanted=wanted)
    return found


def _targets() -> list[Target]:
    return [get_target(name) for name in TARGETS]


def _is_object(data: object) -> bool:
    return isinstance(data, dict)


def _is_own(data: object) -> bool:
    return any("binding" in entry for entry in entries_of(data, "specializations"))


def _own(data: object) -> tuple[Specialization, ...]:
    entries = entries_of(data, "specializations")
    if len(entries) < len(cast("dict[str, list[object]]", data)["specializations"]):
        raise ManifestInvalid("holds an entry that is no specialization", where="specializations")
    found = tuple(read_specialization(entry, index) for index, entry in enumerate(entries))
    for graph in dict.fromkeys(item.graph for item in found):
        refuse_doubled(item.name for item in found if item.graph == graph)
    return found
