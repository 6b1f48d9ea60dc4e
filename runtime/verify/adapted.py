"""Adapters and draws are proved in rounds: the base model, then each adapter in the weights or beside them; draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import OnnxPassesError, PassRefused
from ...ir.interface.analysis import analysis_of
from ...ir.interface.roles import Role
from ...ir.program.contract import Array, Arrays, Contract
from ...ir.program.contracts.adapters import (
    FOLDED_HALF,
    FOLDED_SUMS,
    AdapterInputs,
    AdapterSlots,
    Source,
    WeightsFolded,
)
from ...ir.program.contracts.chain import Chain
from ...ir.program.contracts.sampling import DrawnTokens, SampledTokens
from ...ir.program.program import Program
from ..session.subject import Subject, static
from .replay_graphs import replays

if TYPE_CHECKING:
    from ...ir.rewrite.layer.projections import Projection

Matrices = Mapping[str, tuple[Array, Array]]
"""Module -> FLOAT ``[in, rank]`` and ``[rank, out]``."""
WHERE = "verify"
KINDS = (AdapterInputs, AdapterSlots, WeightsFolded, SampledTokens)
C = TypeVar("C", bound=Contract)


@dataclass(frozen=True)
class Round:
    """One comparison: the original, or what it is with an adapter, the result fed so, and what is said of it."""

    original: Program
    result: Program
    title: str = ""


@dataclass(frozen=True)
class GivenInputs(AdapterInputs):
    """The same inputs, fed with matrices that change something."""

    def fed(self) -> dict[str, Array]:
        """Random matrices."""
        return self.matrices(zero=False)

    def tolerance(self, name: str, found: Array) -> float:
        """Sums in another order."""
        return FOLDED_SUMS if self.dtype in ("FLOAT", "DOUBLE") else FOLDED_HALF


@dataclass(frozen=True)
class GivenSlot(AdapterSlots):
    """The same input, fed with one number for every line."""

    number: int = 0

    def adapt_inputs(self, feeds: Arrays) -> dict[str, Array]:
        """That number."""
        return {**feeds, self.ids: self.chosen(feeds, self.number)}

    def tolerance(self, name: str, found: Array) -> float:
        """Sums in another order."""
        return FOLDED_HALF if found.dtype.itemsize == 2 else FOLDED_SUMS


def rounds(original: Program, result: Program, tell: Callable[[str], None]) -> Iterator[Round]:
    """What is to be compared; without adapters the two programs as they are. ``tell`` hears what cannot be proved."""
    chain = Chain.between(original, result)
    new = [link for link in chain.links if isinstance(link, KINDS) and link.step >= chain.since]
    try:
        for link in new:
            if isinstance(link, WeightsFolded):
                original = _with(original, link, _read(link.sources), folded=False)
        yield Round(original, result)
        for link in new:
            if isinstance(link, AdapterInputs):
                pairs = link.matrices(zero=False)
                matrices = {m: (pairs[d], pairs[u]) for m, d, u in zip(link.modules, link.downs, link.ups, strict=True)}
                given = _as(GivenInputs, link)
                yield Round(_with(original, link, matrices), _replaced(result, link, given), "random adapters")
            if isinstance(link, SampledTokens) and not replays(result):
                yield Round(original, _replaced(result, link, _as(DrawnTokens, link)), "drawn")
            if isinstance(link, AdapterSlots):
                for number, source in enumerate(link.sources, 1):
                    given = _as(GivenSlot, link, number=number)
                    before = _with(original, link, _read([source]))
                    yield Round(before, _replaced(result, link, given), f"adapter {source.name}")
    except OnnxPassesError as error:
        tell(f"not verified with its adapters: {error}")


def _as(kind: type[C], link: Contract, **more: Any) -> C:
    return kind(**{item.name: getattr(link, item.name) for item in fields(link)}, **more)


def _replaced(result: Program, link: Contract, given: Contract) -> Program:
    """The result whose contract feeds an adapter."""
    return replace(result, contracts=[given if c is link else c for c in result.contracts])


def _read(sources: Sequence[Source]) -> Matrices:
    """The sum of the adapters, from their files; PassRefused where one is not what it was."""
    from ...ir.serialization.adapters import read_adapter

    found: dict[str, tuple[Array, Array]] = {}
    for source in sources:
        adapter = read_adapter(Path(source.path))
        if adapter.sha256 != source.sha256:
            raise PassRefused("the adapter is another one than was folded or stacked", where=source.path)
        for pair in adapter.pairs:
            down, up = found.get(pair.module, (np.zeros((pair.width, 0)), np.zeros((0, pair.columns))))
            found[pair.module] = (np.hstack([down, pair.down()]), np.vstack([up, pair.up()]))
    return found


def _with(original: Program, link: Contract, matrices: Matrices, *, folded: bool = True) -> Program:
    """The original with an adapter in every graph that the contract is about."""
    graphs = {name: _adapted(m, matrices, folded) if link.is_about(name) else m for name, m in original.graphs.items()}
    return replace(original, graphs=graphs)


def _adapted(model: ir.Model, matrices: Matrices, folded: bool) -> ir.Model:
    """A copy with ``rows @ (W + down @ up)``, or with the product of the two beside it where weights are quantized."""
    from ...ir.rewrite.builder import Builder
    from ...ir.rewrite.lora import Beside, find_module
    from ...ir.rewrite.lora.plan import projections_of
    from ...ir.shapes.float_values import element_types

    copy = model.clone()
    known = analysis_of(copy)
    projections = projections_of(copy, known, WHERE)
    matched = [(find_module(module, projections)[0], *pair) for module, pair in matrices.items()]
    chosen = [(projection, down, up) for projection, down, up in matched if projection is not None]
    beside = Beside(copy, Builder(copy.graph, WHERE), known.facts, element_types(copy), WHERE)
    rest = _folded(chosen) if folded else chosen
    for projection, down, up in rest:
        dtype = element_types(copy).get(projection.node.outputs[0]) or ir.DataType.FLOAT
        halves = [ir.Tensor(half.astype(dtype.numpy()), dtype=dtype) for half in (down, up)]
        beside.add(projection, *(beside.builder.constant(half, str(projection.node.name)) for half in halves))
    return copy


def _folded(chosen: Sequence[tuple[Projection, Array, Array]]) -> list[tuple[Projection, Array, Array]]:
    """Folds what can be folded; the rest."""
    from ...ir.rewrite.lora import fold

    groups: dict[ir.Node, list[tuple[Projection, Array, Array]]] = {}
    for item in chosen:
        groups.setdefault(item[0].node, []).append(item)
    rest: list[tuple[Projection, Array, Array]] = []
    for group in groups.values():
        try:
            fold([(p, _product(down, up)) for p, down, up in group], WHERE)()
        except PassRefused:
            rest += group
    return rest


def _product(down: Array, up: Array) -> Callable[[], Array]:
    return lambda: down.astype(np.float64) @ up


def of_contract(subject: Subject, adapted: Arrays, feed: Arrays) -> dict[str, Array]:
    """Of what the contracts feed, the tokens and adapters of a clone, and what draws its likeliest token."""
    tokens = [v.name or "" for role in (Role.TOKEN_IDS, Role.EMBEDDINGS) for v in subject.inputs(role)]
    same = {n: adapted[n] for n in tokens if n in adapted and adapted[n].shape == feed[n].shape}
    draws = [v.name or "" for v in subject.inputs(Role.SAMPLING)]
    neutral = {name: adapted[name] for name in draws if name in adapted}
    alike = {name: np.broadcast_to(array.reshape(-1)[:1], feed[name].shape) for name, array in neutral.items()}
    return same | alike | adapters_in(subject, adapted)


def adapters_in(subject: Subject, adapted: Arrays) -> dict[str, Array]:
    """Of what the contracts feed, the adapters of a graph, in the sizes that it is bound to."""
    values = [value for value in subject.inputs(Role.ADAPTER) if value.name in adapted and value.shape is not None]
    return {str(v.name): _fitted(adapted[str(v.name)], [static(dim) for dim in v.shape or ()]) for v in values}


def _fitted(array: Array, sizes: Sequence[int | None]) -> Array:
    """The matrix with zeros behind it where a larger rank is bound, and cut where a smaller one is."""
    shape = tuple(size if size is not None else own for size, own in zip(sizes, array.shape, strict=False))
    if array.shape == shape or array.ndim != len(shape):
        return array
    found = np.zeros(shape, array.dtype)
    kept = tuple(slice(min(size, wanted)) for size, wanted in zip(array.shape, shape, strict=True))
    found[kept] = array[kept]
    return found
