"""Free dimension overrides of onnxruntime give each symbol of the graph, and each derived dimension, a number."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from ..core.specialization import ManifestInvalid, Specialization, read_specialization
from ..symbolic.dims import Expr, parse, substitute
from .base import Command, GraphInterface, Port, entries_of
from .strict import load_list

OVERRIDES = "free_dimension_overrides.json"


@dataclass(frozen=True)
class Ort:
    """See :class:`~.base.Target`.

    onnxruntime takes ``past + seq`` for a name of its own and derives nothing, so derived dimensions are written too.
    """

    name: str = "ort"
    tolerated: frozenset[str] = frozenset()
    file: str = OVERRIDES

    def matches(self, data: object) -> bool:
        """Specializations with ``overrides``."""
        return any("overrides" in entry for entry in entries_of(data, "specializations"))

    def write(self, interface: GraphInterface) -> dict[str, str]:
        """``free_dimension_overrides.json``: specialization -> dimension's name -> number."""
        specializations = [
            {"name": item.name, "overrides": dict(sorted(_overrides(interface, item).items()))}
            for item in interface.specializations
        ]
        return {interface.file(OVERRIDES): json.dumps({"specializations": specializations}, indent=2) + "\n"}

    def read(self, text: str, *, where: str) -> list[Specialization]:
        """The overrides as specializations; names that are expressions are derived again and left out."""
        entries = load_list(text, "specializations", where=where)
        return [_read(entry, index, where) for index, entry in enumerate(entries)]

    def commands(self, interface: GraphInterface) -> list[Command]:
        """onnxruntime is called as a library: the overrides are session options, and there is nothing to compile."""
        return []


def _overrides(interface: GraphInterface, item: Specialization) -> dict[str, int]:
    found: dict[str, int] = {}
    for port in (*interface.inputs, *interface.outputs):
        for dim, spelled in zip(port.shape or (), port.spelled, strict=True):
            size = substitute(dim, item.binding) if isinstance(dim, Expr) else None
            if isinstance(size, int):
                found[spelled] = size
            elif isinstance(dim, Expr) and port in interface.inputs:
                _refuse(port, dim, item)
    return found


def _refuse(port: Port, dim: Expr, item: Specialization) -> None:
    raise ManifestInvalid(
        f"does not bind {dim}", where=f"specialization {item.name!r}", found=f"a dimension of input {port.name!r}"
    )


def _read(entry: Any, index: int, where: str) -> Specialization:
    fields = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    overrides = fields.get("overrides")
    if set(fields) != {"name", "overrides"} or not isinstance(overrides, dict):
        raise ManifestInvalid("is no entry", where=f"{where}, entry {index}", wanted='{"name": …, "overrides": {…}}')
    symbols = {k: v for k, v in cast("Mapping[str, Any]", overrides).items() if _is_symbol(k)}
    return read_specialization({"name": fields["name"], "symbols": symbols}, index)


def _is_symbol(name: str) -> bool:
    dim = parse(name)
    return isinstance(dim, Expr) and dim.is_symbol


TARGET = Ort()
