"""A copy leaves out the parts of a weight file that nothing refers to any more."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DEAD_BYTES = 64 << 10  # a shorter gap is alignment: leaving it out would save nothing
LINE = 64  # small tensors are read, not mapped
PAGE = 4096  # runtimes map weights by pages: a part keeps its place within one


@dataclass(frozen=True)
class Part:
    """The bytes ``start`` to ``end`` of a file, which lie from ``target`` on in the copy."""

    start: int
    end: int
    target: int


def parts_of(
    used: Iterable[tuple[int, int]], size: int, dead: int = DEAD_BYTES, least: int = 0
) -> tuple[Part, ...] | None:
    """The parts of a file of ``size`` bytes that hold the ``used`` ranges (start, end); None where it is all of it.

    Gaps of up to ``dead`` bytes are kept; a part of fewer than ``least`` bytes needs no place of its own in a page.
    """
    merged: list[tuple[int, int]] = [(0, 0)]
    for start, end in sorted(used):
        first, last = merged[-1]
        if start - last <= dead:
            merged[-1] = first, max(last, end)
        else:
            merged.append((start, end))
    first, last = merged[-1]
    merged[-1] = first, size if size - last <= dead else last
    kept = [(start, end) for start, end in merged if end > start]
    return None if kept == [(0, size)] else _packed(kept, least)


def _packed(ranges: Iterable[tuple[int, int]], least: int) -> tuple[Part, ...]:
    parts: list[Part] = []
    free = 0
    for start, end in ranges:
        unit = LINE if end - start < least else PAGE
        target = -(-free // unit) * unit + start % unit
        parts.append(Part(start, end, target))
        free = target + end - start
    return tuple(parts)


def size_of(parts: Sequence[Part]) -> int:
    """The bytes of a copy of these parts."""
    return parts[-1].target + parts[-1].end - parts[-1].start if parts else 0


def moved(parts: Sequence[Part], offset: int) -> int:
    """Where the byte at ``offset`` of a part is in the copy; a tensor without bytes may lie anywhere."""
    part = parts[max(bisect_right(parts, offset, key=lambda part: part.start) - 1, 0)] if parts else Part(0, 0, 0)
    return part.target + min(max(offset, part.start), part.end) - part.start
