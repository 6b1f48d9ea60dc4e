"""Flat specializations, symbols without names, are for qaic compilers and firmware that reject the named form."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.specialization import ManifestInvalid, Specialization
from .base import Command, GraphInterface, entries_of
from .qaic import SPECIALIZATIONS, TOLERATED, custom_io_file, qaic_commands, read_entries, specializations_file


@dataclass(frozen=True)
class QaicFlat:
    """See :class:`~.base.Target`."""

    name: str = "qaic-flat"
    tolerated: frozenset[str] = TOLERATED
    file: str = SPECIALIZATIONS

    def matches(self, data: object) -> bool:
        """Specializations that hold sizes and nothing else."""
        entries = entries_of(data, "specializations")
        return bool(entries) and all(isinstance(size, str | int) for entry in entries for size in entry.values())

    def write(self, interface: GraphInterface) -> dict[str, str]:
        """``specializations.json``, and ``custom_io.yaml`` where precisions are chosen.

        ManifestInvalid where two specializations differ in more than their symbols, which this form cannot say.
        """
        seen: dict[tuple[tuple[str, int], ...], str] = {}
        for item in interface.specializations:
            vector = tuple(sorted(item.binding.items()))
            if vector in seen:
                raise ManifestInvalid(
                    f"has the symbols of {seen[vector]!r}", where=f"specialization {item.name!r}",
                    hint="The flat form holds no names: use the named one, target=qaic.",
                )  # fmt: skip
            seen[vector] = item.name
        flat = [item.symbols for item in interface.specializations]
        return {**specializations_file(interface, flat), **custom_io_file(interface)}

    def read(self, text: str, *, where: str) -> list[Specialization]:
        """Specializations of a named or a flat file."""
        return read_entries(text, where=where)

    def commands(self, interface: GraphInterface) -> list[Command]:
        """One call of ``qaic-compile``."""
        return qaic_commands(interface)


TARGET = QaicFlat()
