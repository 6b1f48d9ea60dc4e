"""Named specializations of the qaic compiler: strings, keys sorted, byte for byte as its own exporter writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from ..core.specialization import ManifestInvalid, Specialization, read_specialization, refuse_doubled
from ..specialize.naming import to_named
from .base import Command, GraphInterface, entries_of
from .custom_io_yaml import CUSTOM_IO, write_custom_io
from .strict import dump_json, load_list

SPECIALIZATIONS = "specializations.json"
TOLERATED = frozenset({"full_batch_exec_size"})


@dataclass(frozen=True)
class Qaic:
    """See :class:`~.base.Target`."""

    name: str = "qaic"
    tolerated: frozenset[str] = TOLERATED
    file: str = SPECIALIZATIONS

    def matches(self, data: object) -> bool:
        """Specializations with ``symbols``."""
        return any("symbols" in entry for entry in entries_of(data, "specializations"))

    def write(self, interface: GraphInterface) -> dict[str, str]:
        """``specializations.json`` where symbols are left, and ``custom_io.yaml`` where precisions are chosen."""
        named = [{"name": item.name, "symbols": item.symbols} for item in interface.specializations]
        return {**specializations_file(interface, named), **custom_io_file(interface)}

    def read(self, text: str, *, where: str) -> list[Specialization]:
        """Specializations of a named or a flat file."""
        return read_entries(text, where=where)

    def commands(self, interface: GraphInterface) -> list[Command]:
        """One call of ``qaic-compile``."""
        return qaic_commands(interface)


def specializations_file(interface: GraphInterface, entries: Sequence[object]) -> dict[str, str]:
    """``specializations.json``; nothing for a graph of numbers alone, for which a compiler wants none."""
    return {interface.file(SPECIALIZATIONS): dump_json({"specializations": entries})} if has_symbols(interface) else {}


def has_symbols(interface: GraphInterface) -> bool:
    """Whether any specialization is left with a symbol to bind."""
    return any(item.binding for item in interface.specializations)


def custom_io_file(interface: GraphInterface) -> dict[str, str]:
    """``custom_io.yaml`` where precisions are chosen, else nothing."""
    return {interface.file(CUSTOM_IO): write_custom_io(interface.custom_io)} if interface.custom_io else {}


def qaic_commands(interface: GraphInterface) -> list[Command]:
    """``qaic-compile`` with what the interface has files, states and functions for."""
    arguments = ["-aic-hw", f"-m={interface.graph}.onnx"]
    if interface.partition:
        arguments.append(f"-mdp-load-partition-config={interface.partition}")
    if interface.states:
        arguments.append("-retained-state")
    if interface.functions:
        arguments.append("-sub-functions")
    if has_symbols(interface):
        arguments.append(f"-network-specialization-config={interface.file(SPECIALIZATIONS)}")
    if interface.custom_io:
        arguments.append(f"-custom-IO-list-file={interface.file(CUSTOM_IO)}")
    return [Command("qaic-compile", (*arguments, f"-aic-binary-dir={interface.graph}.qpc"))]


def load_entries(text: str, *, where: str) -> list[dict[str, object]]:
    """The entries of a named or flat file in named form, names unique; ManifestInvalid where it is neither."""
    return to_named(load_list(text, "specializations", where=where))


def read_entries(text: str, *, where: str) -> list[Specialization]:
    """The specializations of a named or flat file."""
    names = [
        cast("dict[str, object]", item).get("name") if isinstance(item, dict) else None
        for item in load_list(text, "specializations", where=where)
    ]
    refuse_doubled(name for name in names if isinstance(name, str))
    return [read_specialization(entry, index) for index, entry in enumerate(load_entries(text, where=where))]


def compiled_sizes(text: str, *, where: str) -> tuple[int, int, int | None]:
    """Batch, context and full batch that a program was compiled for, as its first specialization tells them."""
    entries = load_entries(text, where=where)
    if not entries:
        raise ManifestInvalid("holds no specialization", where=where)
    symbols = cast("Mapping[str, str]", entries[0]["symbols"])
    for name in ("batch_size", "ctx_len"):
        if name not in symbols:
            raise ManifestInvalid(f"{name} is missing", where=f"{where}, {entries[0]['name']!r}")
    full = symbols.get("full_batch_size")
    return int(symbols["batch_size"]), int(symbols["ctx_len"]), None if full is None else int(full)


TARGET = Qaic()
