"""States that stay on a device are paired by name and written in place: what stands against that, and what mends it."""

from __future__ import annotations

from collections.abc import Iterable

from ..core.errors import PassRefused
from ..states import Layout, State
from .deployment import Deployment

SUFFIX = "_RetainedState"  # the compiler pairs output X_RetainedState with input X
REMEDY = "convert-states{names=retained}"


def refuse_unretained(states: Iterable[State], kind: Deployment, *, where: str, target: str) -> None:
    """Raises PassRefused for states that a target which keeps them on the device cannot pair, or keep in place."""
    carried = [s for s in states if s.traits.changes and s.input is not None and s.output is not None]
    growing = [s for s in carried if s.gains_row_per_token and not s.is_written]
    if growing and not kind.grows:
        raise PassRefused(
            f"caches grow, and target {target!r} keeps them on the device, where both ends have one size",
            where=where,
            found=_several([s.name for s in growing]),
            wanted="caches written at positions",
            hint=f"Put {_fused(growing, target)}{REMEDY} before the pass that chooses sizes.",
        )
    pairs = [(s.input.name or "", s.output.name or "") for s in carried if s.input and s.output]
    unpaired = [f"{old} -> {new}" for old, new in pairs if new != f"{old}{SUFFIX}"]
    if unpaired and kind.retained:
        raise PassRefused(
            f"target {target!r} cannot pair states: it looks for X -> X{SUFFIX}",
            where=where,
            found=_several(unpaired),
            hint=f"Put {REMEDY} before the pass that chooses sizes, or rename-io before this one.",
        )


def _fused(states: Iterable[State], target: str) -> str:
    """What spells out operators that hold a cache inside them."""
    return f"lower{{target={target}}}," if any(state.layout is Layout.FUSED for state in states) else ""


def _several(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"
