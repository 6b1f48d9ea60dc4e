"""Specializations that share one graph are looked at as clones of it, as a compiler makes programs of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..core.specialization import Specialization, SpecRole
from ..interface.analysis import analysis_of
from ..states import Pairing
from .clone import Clone
from .contracts.sizes import CloneOf
from .joined import joined
from .program import Program

_RUNS = (SpecRole.PREFILL, SpecRole.DECODE)


@dataclass(frozen=True)
class Unrolled:
    """A program in which every prefill and decode has a graph, by name, of its own.

    Attributes:
        program: The program; its nodes and weights are those of the one that was unrolled.
        shared: A graph that was made for one specialization -> the graph whose file holds it.
    """

    program: Program
    shared: Mapping[str, str] = field(default_factory=dict[str, str])


def unrolled(program: Program) -> Unrolled:
    """The program with a clone for every prefill and decode of graphs that carry states.

    Parts of a graph are joined before. Graphs that were cloned for one specialization, and those that pick a branch
    themselves, stay as they are.
    """
    program = joined(program)
    shared = {name: own for name in program.graphs if (own := _runs(program, name))}
    if not shared:
        return Unrolled(program)
    clones, specs, contracts = dict(program.clones), list(program.specializations), list(program.contracts)
    bases = dict[str, str]()
    for base, own in shared.items():
        complete = analysis_of(program.graphs[base]).dimensions().complete
        specs = [spec for spec in specs if spec not in own]
        for spec in own:
            name = spec.name if spec.name not in {*program.names, *bases} else f"{base}.{spec.name}"
            clones[name] = Clone(base, complete(spec.binding))
            specs.append(spec.model_copy(update={"graph": name}))
            contracts.append(CloneOf(name, base, spec.role.value, spec.k, step=len(program.pass_texts)))
            bases[name] = base
    return Unrolled(replace(program, clones=clones, specializations=specs, contracts=contracts), bases)


def _runs(program: Program, graph: str) -> list[Specialization]:
    """The prefills and decodes that share a graph which carries states from run to run; none of a clone's only one."""
    belong = ("", graph) if len(program.names) == 1 else (graph,)
    own = [spec for spec in program.specializations if spec.graph in belong and spec.role in _RUNS]
    if graph not in program.names or not own or (len(own) == 1 and own[0].graph):
        return []
    if any(node.op_type == "If" for node in program.graphs[graph].graph):
        return []  # other branches do not fit the sizes of one
    states = analysis_of(program.graphs[graph]).states
    return own if any(state.pairing is Pairing.BOTH and state.traits.changes for state in states) else []
