"""A program of parts is looked at as what it was split from, by its chain in program.json, to be run whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..core.specialization import Specialization
from ..rewrite.parts import join
from .contracts.sizes import SplitInto
from .program import Program


def chains_of(program: Program) -> list[SplitInto]:
    """The chains whose parts the program has."""
    names = set(program.names)
    return [link for link in program.contracts if isinstance(link, SplitInto) and names.issuperset(link.parts)]


def joined(program: Program) -> Program:
    """The program with one graph in the place of each chain's parts; the same program where it has none."""
    chains = chains_of(program)
    if not chains:
        return program
    gone = {name for chain in chains for name in chain.parts}
    graphs = {chain.graph: join([program.graph(p) for p in chain.parts], chain.graph, chain.handed) for chain in chains}
    rest = {name: model for name, model in program.graphs.items() if name not in gone}
    clones = {name: clone for name, clone in program.clones.items() if name not in gone}
    bases = {clone.base for clone in clones.values()}
    kept = {name: model for name, model in rest.items() if name in bases or name in program.names}
    bound = {chain.graph: program.bound.get(chain.parts[0], {}) for chain in chains}
    specs = [spec for spec in program.specializations if spec.graph not in gone]
    alone = not kept and len(graphs) == 1
    for chain in chains:
        specs += _whole(program.specializations, chain, "" if alone else chain.graph)
    return replace(
        program,
        graphs={**kept, **graphs},
        clones=clones,
        bound={**{name: sizes for name, sizes in program.bound.items() if name not in gone}, **bound},
        specializations=specs,
        contracts=[link for link in program.contracts if link not in chains],
    )


def _whole(specs: Iterable[Specialization], chain: SplitInto, graph: str) -> list[Specialization]:
    """The specializations of a chain's graph: each part binds its own symbols of it."""
    found: dict[str, Specialization] = {}
    for spec in specs:
        if spec.graph in chain.parts:
            first = found.get(spec.name)
            binding = {**first.binding, **spec.binding} if first is not None else spec.binding
            found[spec.name] = spec.model_copy(update={"binding": binding, "graph": graph})
    return list(found.values())
