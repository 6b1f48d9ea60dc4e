"""Which projections get which pairs of which adapters, one to one; what matches nothing is refused by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ...core.errors import PassRefused, UnknownNameError
from ...interface.analysis import GraphAnalysis
from ...serialization.adapters import Adapter, LowRank
from ...shapes.float_values import element_types
from ..layer.projections import Projection, find_projections
from ..layer.spans import find_boundaries
from .match import KINDS, find_module, kind_of, module_of, unknown_targets

SHOWN = 8  # names of a refusal


@dataclass(eq=False)
class Target:
    """A projection, what its module is called, and what each adapter adds to it, if anything."""

    projection: Projection
    module: str
    pairs: list[LowRank | None] = field(default_factory=list["LowRank | None"])

    @property
    def rank(self) -> int:
        """The largest rank of its pairs."""
        return max((pair.rank for pair in self.pairs if pair is not None), default=0)


def projections_of(model: ir.Model, known: GraphAnalysis, where: str) -> list[Projection]:
    """The projections of a decoder; PassRefused where its layers cannot be told."""
    spans = find_boundaries(model, known.states, known.roles, element_types(model), where)
    found = find_projections(model, spans, known.facts)
    if not any(p.layer is not None for p in found):
        raise PassRefused("no layer has a product with a weight", where=where,
                          hint="Put ir-inline before this pass where the layers are local functions.")  # fmt: skip
    return found


def by_kinds(projections: Sequence[Projection], targets: Sequence[str], where: str) -> list[Target]:
    """The projections of the kinds that ``targets`` name; errors for a kind unknown or not there."""
    if unknown := unknown_targets(targets):
        known = [*KINDS, *(names[0] for names in KINDS.values())]
        raise UnknownNameError("target", unknown[0], known, where=where, hint=f"Targets are {', '.join(KINDS)}.")
    wanted = list(dict.fromkeys(kind_of(target) for target in targets))
    found = [Target(p, module_of(p)) for p in projections if p.kind in wanted]
    there = {target.projection.kind for target in found}
    if missing := [kind for kind in wanted if kind not in there]:
        kinds = ", ".join(dict.fromkeys(p.kind for p in projections if p.kind))
        raise PassRefused("no projection of this kind is in the graph", where=where, found=missing[0], wanted=kinds)
    return found


def by_adapters(projections: Sequence[Projection], adapters: Sequence[Adapter], where: str) -> list[Target]:
    """The projections that the adapters name, in graph order.

    Raises PassRefused for modules that match none, two that match one, and matrices of another base's sizes.
    """
    targets: dict[int, Target] = {}
    for at, adapter in enumerate(adapters):
        lost: list[str] = []
        for pair in adapter.pairs:
            projection, why = find_module(pair.module, projections)
            if projection is None:
                lost.append(f"{pair.module} ({why})")
                continue
            target = targets.setdefault(id(projection), Target(projection, pair.module, [None] * len(adapters)))
            if target.pairs[at] is not None:
                raise PassRefused("two modules are one projection", where=f"{where}, adapter {adapter.name!r}",
                                  found=f"{target.pairs[at].module}, {pair.module}")  # pyright: ignore[reportOptionalMemberAccess]  # fmt: skip
            _hold_sizes(pair, projection, f"{where}, adapter {adapter.name!r}")
            target.pairs[at] = pair
        if lost:
            more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
            raise PassRefused(
                f"{len(lost)} of {len(adapter.pairs)} modules match no projection of the graph",
                where=f"{where}, adapter {adapter.name!r}", found=f"{'; '.join(lost[:SHOWN])}{more}",
                hint="Is it an adapter of this model?",
            )  # fmt: skip
    order = {id(p): number for number, p in enumerate(projections)}
    return sorted(targets.values(), key=lambda target: order[id(target.projection)])


def _hold_sizes(pair: LowRank, projection: Projection, where: str) -> None:
    if (pair.width, pair.columns) != (projection.width, projection.columns):
        raise PassRefused(
            "the adapter belongs to another base model", where=where,
            found=f"{pair.module}: {pair.width} to {pair.columns} columns",
            wanted=f"{projection.width} to {projection.columns}",
        )  # fmt: skip


def table(targets: Sequence[Target], projections: Sequence[Projection], adapters: Sequence[Adapter]) -> list[str]:
    """What matched and what did not, as sentences."""
    said = [
        f"{adapter.name}: {len(adapter.pairs)} of {len(adapter.pairs)} modules matched, one to one: "
        + _counted(target.projection for target in targets if target.pairs[at] is not None)
        for at, adapter in enumerate(adapters)
    ]
    chosen = {(id(t.projection.node), at) for t in targets for at in range(t.projection.low, t.projection.high)}
    left = [p for p in projections if not any((id(p.node), at) in chosen for at in (p.low, p.high - 1))]
    return [*said, *([f"left as they are: {_counted(left)}"] if left else [])]


def _counted(projections: Iterable[Projection]) -> str:
    counts = Counter(p.kind or str(p.node.name) for p in projections)
    return ", ".join(f"{kind} x {count}" for kind, count in counts.items())
