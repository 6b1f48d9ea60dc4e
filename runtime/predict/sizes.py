"""Finds the sizes that a program is compiled for, and fills them with batches of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ...ir.core.errors import UsageError
from ...ir.core.specialization import Manifest
from ...ir.interface.roles import Role
from ...ir.program.program import Program
from ..session.subject import Subject, static

FREE_BATCH = 64  # texts a run where nothing fixes it
FREE_TOKENS = 512  # and so many tokens at most: what a layer hands on then stays in a core's cache
"""Measured on onnxruntime 1.32's CPU kernels: runs of 32 texts take 1.3 times as long as runs of 512 tokens."""


@dataclass(frozen=True)
class Size:
    """One shape that a graph is run with; None where the graph leaves it open."""

    graph: str
    batch: int | None = None
    length: int | None = None


@dataclass(frozen=True)
class Batch:
    """Texts that are run together, by their places; ``rows`` and ``length`` of the arrays."""

    graph: str
    texts: tuple[int, ...]
    rows: int
    length: int


def sizes_of(program: Program, subjects: dict[str, Subject]) -> list[Size]:
    """What the graphs fix, else what the specializations bind, else one open size; the shortest first."""
    specs, found = Manifest.of(program.specializations).specializations, list[Size]()
    for name, subject in subjects.items():
        tokens = _tokens(subject)
        if tokens is None:
            continue
        dims = [tokens.shape[axis] if tokens.shape is not None else None for axis in (0, 1)]
        fixed = [static(dim) for dim in dims]
        bindings = [spec.binding for spec in specs if spec.graph in ("", name)] or [{}]
        for binding in bindings:
            batch, length = (
                size if size is not None else binding.get(str(getattr(dim, "value", None)))
                for size, dim in zip(fixed, dims, strict=True)
            )
            found.append(Size(name, batch, length))
    if not found:
        raise UsageError("no graph takes token ids", found=", ".join(subjects), hint="Give its inputs with --feeds.")
    return sorted(set(found), key=lambda size: (size.length is None, size.length or 0, size.batch or 0))


def _tokens(subject: Subject) -> ir.Value | None:
    return next((value for value in subject.inputs(Role.TOKEN_IDS) if len(value.shape or ()) == 2), None)


def plan(lengths: Sequence[int], sizes: Sequence[Size], batch: int | None) -> list[Batch]:
    """Texts of like lengths together, each in the smallest size that it fits; the longest run first.

    Raises UsageError for a batch that the graphs are not compiled for.
    """
    if batch is not None and all(size.batch not in (None, batch) for size in sizes):
        known = ", ".join(str(size.batch) for size in sizes)
        raise UsageError("no graph is compiled for this batch", found=batch, wanted=known)
    usable = [size for size in sizes if batch is None or size.batch in (None, batch)]
    order = sorted(range(len(lengths)), key=lambda at: lengths[at])
    batches: list[Batch] = []
    at = 0
    while at < len(order):
        size = _smallest(usable, lengths[order[at]])
        taken = _taken(order[at:], lengths, size, batch)
        last = lengths[order[at + taken - 1]]
        rows = size.batch if size.batch is not None else taken
        batches.append(Batch(size.graph, tuple(order[at : at + taken]), rows, size.length or last))
        at += taken
    return batches[::-1]


def _smallest(sizes: Sequence[Size], length: int) -> Size:
    return next((size for size in sizes if size.length is None or size.length >= length), sizes[-1])


def _taken(order: Sequence[int], lengths: Sequence[int], size: Size, batch: int | None) -> int:
    """How many of the next texts go into one run: as many as fit, and no more tokens than are worth it."""
    most, free = min(size.batch or batch or FREE_BATCH, len(order)), batch is None and size.batch is None
    if size.length is not None:
        most = min(most, max(1, FREE_TOKENS // size.length)) if free else most
        return max(1, sum(1 for at in order[:most] if lengths[at] <= size.length))
    while free and most > 1 and most * lengths[order[most - 1]] > FREE_TOKENS:
        most -= 1
    return most
