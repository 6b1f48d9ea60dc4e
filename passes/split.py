"""split makes a decoder parts that run one after the other: embedding, groups of layers, head."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import onnx_ir as ir

from ..ir.core.errors import PassRefused, UsageError
from ..ir.core.specialization import Manifest, Specialization
from ..ir.manifests.layers import layer_bounds
from ..ir.program.clone import Clone
from ..ir.program.contracts.sizes import SplitInto
from ..ir.program.program import Program
from ..ir.rewrite.parts import Boundaries, PartCut, cut_parts, find_stretches, stretch_weights
from ..ir.serialization.weights import file_bytes
from ..ir.specialize.budget import bytes_of, grouped
from ..ir.symbolic.symbols import symbols_of
from .base import Pass, Report


class PartWeights(enum.Enum):
    """Where the weights of parts lie."""

    OWN = "own"
    SHARED = "shared"


@dataclass(frozen=True)
class Split(Pass):
    """Makes each graph several that run one after the other, for compilers that take no more than some gigabytes.

    Before → after, with ``layers=7`` on a decoder of 28 layers::

        model: input_ids, attention_mask, past_key_values.0.key … → logits, present.0.key …
          →   embed:        input_ids → hidden states
              layers_0_6:   hidden states, attention_mask, past_key_values.0.key … → hidden states, present.0.key …
              layers_7_13, layers_14_20, layers_21_27
              head:         hidden states → logits

    1. A layer begins where ``extract-layer`` and ``partition{stages}`` have it begin: at the last value through which
       everything goes on. ``parts`` are groups of layers as even as ``partition`` makes its stages, ``layers`` groups
       of that many, ``bytes`` as few as keep each part's weights within.
    2. Tensors keep their names; what is handed on has the name that it has inside the whole graph: hidden states, or
       the sum and the norm of an operator that makes both (``SkipLayerNormalization``). Masks and rotary angles are
       computed in each part, from the inputs of the whole. A length that was read off another layer's past is read
       off the part's own.
    3. ``embedding=false`` and ``head=false`` leave these with the first and the last layers.
    4. ``weights=own`` copies each part's weights into ``<part>.data``, roles of one part share it; ``shared`` refers to
       them where they lie.
    5. Each part has its states, specializations and encodings; the chain stands in program.json. ``verify`` runs the
       parts joined and one by one, ``generate`` and ``compare`` run them joined.

    Refused: a part that needs an inner value, or the rows of a state, of an earlier one (``carry=true`` hands them on),
    a budget that a layer, the embedding or the head does not fit, more parts than layers.

    Attributes:
        parts: How many groups of layers.
        layers: How many layers a group has.
        bytes: The most bytes of weights of a part, as 2GB, 500MB or a number.
        embedding: Whether the embedding is a part of its own.
        head: Whether final norm and head are.
        weights: own or shared.
        carry: Whether inner values that later parts need are handed on.
    """

    name: ClassVar[str] = "split"

    parts: int | None = None
    layers: int | None = None
    bytes: str = ""
    embedding: bool = True
    head: bool = True
    weights: PartWeights = PartWeights.OWN
    carry: bool = False

    def __post_init__(self) -> None:
        """UsageError unless exactly one of parts, layers and bytes is given, and is more than nothing."""
        given = [name for name in ("parts", "layers", "bytes") if getattr(self, name) not in (None, "")]
        if len(given) != 1:
            found, wanted = ", ".join(given) or "none of them", "one of parts, layers and bytes"
            raise UsageError("how it is split is not clear", where=f"pass {self.name!r}", found=found, wanted=wanted)
        size = bytes_of(self.bytes, where=f"pass {self.name!r}, bytes") if self.bytes else self.parts or self.layers
        if not size or size < 1:
            raise UsageError("too small", where=f"pass {self.name!r}, {given[0]}", found=size, wanted=">= 1")

    def run(self, program: Program) -> Report:
        """Replaces each graph by its parts; raises PassRefused before it changes the program."""
        made = {name: self._split(name, model) for name, model in program.graphs.items()}
        several = len(program.names) > 1
        chains: list[SplitInto] = []
        graphs, clones = dict[str, ir.Model](), dict[str, Clone]()
        bound, specs = dict[str, dict[str, int]](), list[Specialization]()
        for graph in program.names:
            clone = program.clones.get(graph)
            base = graph if clone is None else clone.base
            names = {part: f"{graph}_{part}" if several else part for part in made[base]}
            for part, cut in made[base].items():
                own = names[part] if clone is None else f"{base}_{part}"
                graphs[own] = cut.model
                cut.model.graph.name = own
                if clone is not None:
                    clones[names[part]] = replace(clone, base=own)
                if self.weights is PartWeights.OWN:
                    program.weight_files[own] = f"{part}.data"
                if program.bound.get(graph):
                    bound[names[part]] = dict(program.bound[graph])
                specs += _own(program.specializations, graph, names[part], cut.model)
            handed = {v for cut in made[base].values() for v in cut.leaving if v not in cut.answers}
            chains.append(SplitInto(graph, tuple(names.values()), tuple(sorted(handed))))
        program.graphs, program.clones, program.bound = graphs, clones, bound
        program.specializations = list(Manifest.of(specs).specializations)
        notes = tuple(_borrowed(part, cut) for cuts in made.values() for part, cut in cuts.items() if cut.borrowed)
        counts = {"parts": len(program.names), "nodes": sum(len(model.graph) for model in graphs.values())}
        return Report(True, counts, notes=notes, contracts=tuple(chains))

    def _split(self, name: str, model: ir.Model) -> dict[str, PartCut]:
        where = f"{self.name}, graph {name!r}"
        found = find_stretches(model, where)
        groups = list(self._groups(found, where))
        names = [_name(found, group) for group in groups]
        cuts = [group[0] for group in groups[1:]]
        return dict(zip(names, cut_parts(found, cuts, names, carry=self.carry, owner=where), strict=True))

    def _groups(self, found: Boundaries, where: str) -> Iterator[Sequence[int]]:
        """The stretches of each part, by their places."""
        places = range(len(found.stretches))
        first, last = int(found.embeds), len(places) - 1
        groups = [list(group) for group in self._layer_groups(found, range(first, last), where)]
        if found.embeds and self.embedding:
            groups.insert(0, [0])
        elif found.embeds:
            groups[0].insert(0, 0)
        if self.head:
            groups.append([last])
        else:
            groups[-1].append(last)
        yield from groups

    def _layer_groups(self, found: Boundaries, places: range, where: str) -> list[Sequence[int]]:
        if self.bytes:
            return self._within(found, places, where)
        if self.layers is not None:
            return [places[at : at + self.layers] for at in range(0, len(places), self.layers)]
        if (self.parts or 0) > len(places):
            raise PassRefused(
                "has fewer layers than parts", where=where, found=f"{len(places)} layers", wanted=f">= {self.parts}",
                hint=f"Give parts={len(places)} or fewer.",
            )  # fmt: skip
        ends = [0, *layer_bounds(len(places), self.parts or 1), len(places)]
        return [places[start:end] for start, end in itertools.pairwise(ends)]

    def _within(self, found: Boundaries, places: range, where: str) -> list[Sequence[int]]:
        """As few groups as keep every part's weights within the budget; PassRefused for a stretch that is larger."""
        budget = bytes_of(self.bytes, where=where)
        weights = stretch_weights(found)
        ends = {0: places[0], len(found.stretches) - 1: places[-1]}
        apart = {0: self.embedding and found.embeds, len(found.stretches) - 1: self.head}

        def size(group: Sequence[int]) -> int:
            more = [end for end, layer in ends.items() if end not in places and not apart[end] and layer in group]
            return file_bytes({id(t): t for at in (*group, *more) for t in weights[at]}.values())

        for end, alone in apart.items():
            if alone and (needed := size([end])) > budget:
                raise _too_large("the head" if end else "the embedding", needed, budget, where)
        return grouped(places, size, budget, lambda at, needed: _too_large(_layer(found, at), needed, budget, where))


def _layer(found: Boundaries, at: int) -> str:
    return f"layer {found.stretches[at].number}"


def _too_large(what: str, needed: int, budget: int, where: str) -> PassRefused:
    return PassRefused(
        f"{what} does not fit the budget", where=where, found=f"{needed:,} bytes of weights",
        wanted=f"<= {budget:,}", hint=f"Give bytes={needed} or more, or quantize the weights first.",
    )  # fmt: skip


def _name(found: Boundaries, group: Sequence[int]) -> str:
    numbers = [found.stretches[at].number for at in group if found.stretches[at].number is not None]
    if numbers:
        return f"layers_{numbers[0]}_{numbers[-1]}"
    return "head" if group[0] else "embed"


def _own(specs: Sequence[Specialization], graph: str, part: str, model: ir.Model) -> Iterator[Specialization]:
    """The specializations of one part: those of its graph, with the symbols that it has."""
    symbols = set(symbols_of(model))
    for spec in specs:
        if spec.graph in ("", graph):
            binding = {name: size for name, size in spec.binding.items() if name in symbols}
            yield spec.model_copy(update={"graph": part, "binding": binding, "logits_rows": None})


def _borrowed(part: str, cut: PartCut) -> str:
    return f"{part} takes {', '.join(cut.borrowed[:3])} of another part, for its size or by carry=true"
