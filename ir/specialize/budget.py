"""Groups of consecutive layers within a budget of bytes, as few as there can be."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ..core.errors import OnnxPassesError, UsageError

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([kMGT]?)(i?)B?")
_POWERS = {"": 0, "k": 1, "M": 2, "G": 3, "T": 4}


def bytes_of(text: str, *, where: str) -> int:
    """``2GB`` as 2,000,000,000, ``2GiB`` as 2,147,483,648, a number as it is; UsageError for what is no size."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError("is no size", where=where, found=text[:80], wanted="such as 2GB, 500MB, 1GiB or a number")
    unit = 1024 if match[3] else 1000
    return int(float(match[1]) * unit ** _POWERS[match[2]])


def grouped(
    places: Sequence[int],
    size: Callable[[Sequence[int]], int],
    budget: int,
    too_large: Callable[[int, int], OnnxPassesError],
) -> list[Sequence[int]]:
    """``places`` in their order in groups whose ``size`` is within ``budget``; raises ``too_large`` of a place alone.

    Taking as many as fit, group by group, makes the fewest, for what fits does so without its last place too.
    """
    groups: list[list[int]] = []
    for place in places:
        if groups and size([*groups[-1], place]) <= budget:
            groups[-1].append(place)
            continue
        if (needed := size([place])) > budget:
            raise too_large(place, needed)
        groups.append([place])
    return [tuple(group) for group in groups]
