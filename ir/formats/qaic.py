"""Named specializations of the qaic compiler: strings, keys sorted, byte for byte as its own exporter writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from ..naming import to_named
from ..specialization import ManifestInvalid, Specialization, read_specialization
from .base import Command, Sheet
from .custom_io_yaml import CUSTOM_IO, write_custom_io
from .strict import dump_json, load_list

SPECIALIZATIONS = "specializations.json"
TOLERATED = frozenset({"full_batch_exec_size"})


@dataclass(frozen=True)
class Qaic:
    """See :class:`~.base.Target`."""

    name: str = "qaic"
    tolerated: frozenset[str] = TOLERATED

    def write(self, sheet: Sheet) -> dict[str, str]:
        """``specializations.json`` where symbols are left, and ``custom_io.yaml`` where precisions are chosen."""
        named = [{"name": item.name, "symbols": item.symbols} for item in sheet.specializations]
        return {**specializations_file(sheet, named), **custom_io_file(sheet)}

    def read(self, text: str, *, where: str) -> list[Specialization]:
        """Specializations of a named or a flat file."""
        return read_entries(text, where=where)

    def commands(self, sheet: Sheet) -> list[Command]:
        """One call of ``qaic-compile``."""
        return qaic_commands(sheet)


def specializations_file(sheet: Sheet, entries: Sequence[object]) -> dict[str, str]:
    """``specializations.json``; nothing for a graph of numbers alone, for which a compiler wants none."""
    return {sheet.file(SPECIALIZATIONS): dump_json({"specializations": entries})} if has_symbols(sheet) else {}


def has_symbols(sheet: Sheet) -> bool:
    """Whether any specialization is left with a symbol to bind."""
    return any(item.binding for item in sheet.specializations)


def custom_io_file(sheet: Sheet) -> dict[str, str]:
    """``custom_io.yaml`` where precisions are chosen, else nothing."""
    return {sheet.file(CUSTOM_IO): write_custom_io(sheet.custom_io)} if sheet.custom_io else {}


def qaic_commands(sheet: Sheet) -> list[Command]:
    """``qaic-compile`` with what the sheet has files, states and functions for."""
    arguments = ["-aic-hw", f"-m={sheet.graph}.onnx"]
    if sheet.partition:
        arguments.append(f"-mdp-load-partition-config={sheet.partition}")
    if sheet.states:
        arguments.append("-retained-state")
    if sheet.functions:
        arguments.append("-sub-functions")
    if has_symbols(sheet):
        arguments.append(f"-network-specialization-config={sheet.file(SPECIALIZATIONS)}")
    if sheet.custom_io:
        arguments.append(f"-custom-IO-list-file={sheet.file(CUSTOM_IO)}")
    return [Command("qaic-compile", (*arguments, f"-aic-binary-dir={sheet.graph}.qpc"))]


def load_entries(text: str, *, where: str) -> list[dict[str, object]]:
    """The entries of a named or flat file in named form, names unique; ManifestInvalid where it is neither."""
    return to_named(load_list(text, "specializations", where=where))


def read_entries(text: str, *, where: str) -> list[Specialization]:
    """The specializations of a named or flat file."""
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
