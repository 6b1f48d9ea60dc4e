"""Names of nodes say their layer, and layers are spread over the stages of a pipeline."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence

from ..core.errors import UsageError

_LAYER = re.compile(r"(?:layers\.|h\.|layer_)([0-9]{1,9})")  # one whole part of a name between slashes


def layer_of(node_name: str) -> int | None:
    """The layer that a node's name tells (``/model/layers.3/…``, ``/h.3/…``, ``layer_3/…``), or None."""
    for part in node_name.split("/"):
        match = _LAYER.fullmatch(part)
        if match:
            return int(match[1])
    return None


def layer_bounds(layers: int, stages: int) -> list[int]:
    """Where each stage but the last ends: the layers spread evenly, what is left over to the middle stages first.

    The last stage holds the head besides, so it never has one more; the first has one more only where the middle is
    full. UsageError for no stage or a negative number of layers.
    """
    if stages < 1 or layers < 0:
        raise UsageError("cannot be spread", where="stages", found=f"{layers} layers, {stages} stages", wanted="≥ 1")
    base, left = divmod(layers, stages)
    counts = [base] * stages
    for stage in _middle_out(stages)[:left]:
        counts[stage] += 1
    ends: list[int] = []
    for count in counts[:-1]:
        ends.append((ends[-1] if ends else 0) + count)
    return ends


def stage_of(layer: int, bounds: Sequence[int]) -> int:
    """The stage that a layer is on."""
    return bisect_right(bounds, layer)


def _middle_out(stages: int) -> list[int]:
    """The stages but the last, those in the middle first, the first one last of all."""
    centre = (stages - 1) // 2
    middle = range(1, stages - 1)
    # left before right at the same distance: centre, centre + 1, centre - 1, centre + 2 …
    order = sorted(middle, key=lambda stage: (abs(2 * (stage - centre) - 1), stage))
    return [*order, 0]
