"""A chain applies the contracts between an original graph and a result of it in the order of their recording."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ..contract import Array, Arrays, Contract, Inner, Side
from .interface import FixedSwitch, RenamedIO
from .sizes import Claims, LayerCut, SizesBound
from .unknown import UnknownContract

if TYPE_CHECKING:
    from ..program import Program

ENDS = (SizesBound, LayerCut)  # what is left is a part: nothing more is claimed


@dataclass(frozen=True)
class Chain:
    """What leads from the feeds and outputs of an original graph to those of a result.

    Attributes:
        links: All contracts on the result, oldest first.
        since: The step at which the original was left: what was recorded before it holds of the original too, so its
            inputs must keep it, and it changes nothing.
        sources: What the result's graph was called before the passes; several where graphs were packed.
        lineage: Every name that it or its parts had, newest first.
    """

    links: tuple[Contract, ...] = ()
    since: int = 0
    sources: tuple[str, ...] = ()
    lineage: tuple[str, ...] = ()

    @classmethod
    def of(cls, contracts: Sequence[Contract], graph: str | None = None, since: int = 0) -> Self:
        """The contracts on one graph of a program, as what it was before clones and cuts too; all without a graph."""
        if graph is None:
            return cls(tuple(contracts), since)
        names, sources, lineage, links = (graph,), (graph,), {graph: None}, list[Contract]()
        for contract in reversed(contracts):
            if any(contract.is_about(name) for name in names):
                links.append(contract)
            names = tuple(dict.fromkeys(old for name in names for old in contract.graphs_before(name)))
            sources = names if contract.step >= since else sources
            lineage.update(dict.fromkeys(names))
        return cls(tuple(reversed(links)), since, sources, tuple(lineage))

    @classmethod
    def between(cls, original: Program, result: Program, graph: str | None = None) -> Self:
        """The contracts on a graph of the result since it left the original.

        Where the result did not begin with the original's passes, it is no result of it, and all its contracts count.
        """
        before, after = original.pass_texts, result.pass_texts
        return cls.of(result.contracts, graph, len(before) if after[: len(before)] == before else 0)

    def adapt_inputs(self, feeds: Arrays) -> dict[str, Array]:
        """The result's feeds for the original's; those of inputs that are gone may be among them."""
        for link in self._new:
            feeds = link.adapt_inputs(feeds)
        return dict(feeds)

    def restored(self, feeds: Arrays) -> dict[str, Array]:
        """The original's feeds, under its names, that mean the same as these of the result."""
        for link in reversed(self._new):
            feeds = link.restored(feeds)
        return dict(feeds)

    def constrained(self, feeds: Arrays) -> dict[str, Array]:
        """Feeds of the original that every contract allows."""
        for link, back in self.in_original_names():
            feeds = link.renamed(back).constrained(feeds)
        return dict(feeds)

    def check(self, feeds: Arrays) -> None:
        """Raises ContractBroken, naming the original's input, for feeds of the original that a contract excludes."""
        for (link, back), now in zip(self.in_original_names(), self._before(feeds), strict=True):
            link.renamed(back).holds({back.get(name, name): array for name, array in now.items()})

    def expected(self, outputs: Arrays, feeds: Arrays) -> dict[str, Array]:
        """What the result must give where the original gave ``outputs`` for ``feeds``."""
        return self._outputs(outputs, feeds)[-1]

    def stretch(self, name: str, outputs: Arrays, feeds: Arrays, size: float) -> float:
        """By how much the tolerance of one output of the result grows, where the original gave ``outputs``.

        ``size`` is the largest value of the output where it is compared.
        """
        found, steps = 1.0, self._outputs(outputs, feeds)
        for link, before in zip(reversed(self.links), reversed(steps[:-1]), strict=True):
            if link.step >= self.since:
                found, name = found * link.stretch(name, before, size), link.output_before(name)
        return found

    def _outputs(self, outputs: Arrays, feeds: Arrays) -> list[dict[str, Array]]:
        """What the graph gave before each link, and in the end."""
        given, steps = outputs, [dict(outputs)]
        for link, now in zip(self.links, self._before(feeds), strict=True):
            if link.step >= self.since:
                inner = {value.name: given[value.name] for value in link.observed() if value.name in given}
                outputs = link.expected({**inner, **outputs}, now)  # though an earlier contract took it away
            steps.append(dict(outputs))
        return steps

    def comparable(self, name: str, expected: Array, found: Array, feeds: Arrays) -> tuple[Array, Array]:
        """The parts of one output of the result that both arrays hold; ``feeds`` are the original's."""
        befores = list(self._before(feeds))
        for link, now in zip(reversed(self.links), reversed(befores), strict=True):
            expected, found = link.comparable(name, expected, found, now)
            name = link.output_before(name) if link.step >= self.since else name
        return expected, found

    def tolerance(self, name: str, found: Array) -> float:
        """What one output of the result may differ by, over its largest value."""
        allowed = 0.0
        for link in reversed(self.links):
            allowed = max(allowed, link.tolerance(name, found))
            name = link.output_before(name) if link.step >= self.since else name
        return allowed

    def output_before(self, name: str) -> str:
        """The original's output whose rows an output of the result has."""
        for link in reversed(self._new):
            name = link.output_before(name)
        return name

    def input_before(self, name: str) -> str:
        """The original's name of an input."""
        for link in reversed(self._new):
            name = link.input_before(name)
        return name

    @property
    def observed(self) -> frozenset[Inner]:
        """Values inside the original that what is expected rests on, as they are called in the result."""
        return frozenset(value for link in self._new for value in link.observed())

    @property
    def switches(self) -> dict[str, bool]:
        """Boolean inputs of the original that are fixed in the result."""
        return {
            link.renamed(back).input: link.value
            for link, back in self.in_original_names()
            if isinstance(link, FixedSwitch) and isinstance(link.value, bool)
        }

    @property
    def unknown(self) -> tuple[UnknownContract, ...]:
        """Contracts whose class is not here: nothing can be verified."""
        return tuple(link for link in self.links if isinstance(link, UnknownContract))

    @property
    def _new(self) -> list[Contract]:
        return [link for link in self.links if link.step >= self.since]

    def _before(self, feeds: Arrays) -> Iterator[dict[str, Array]]:
        """The feeds before each link."""
        for link in self.links:
            yield dict(feeds)
            feeds = link.adapt_inputs(feeds) if link.step >= self.since else feeds

    def in_original_names(self) -> Iterator[tuple[Contract, Mapping[str, str]]]:
        """Each link, and the original's names of the inputs that have other names by then."""
        back: dict[str, str] = {}
        for link in self.links:
            yield link, back
            if isinstance(link, RenamedIO) and link.step >= self.since:
                back = {new: back.get(old, old) for old, new in link.pairs} | {
                    new: old for new, old in back.items() if new not in link.new
                }


def renamed(
    contracts: Iterable[Contract], names: Mapping[str, str], interface: Collection[str], step: int
) -> list[Contract]:
    """``contracts`` of a program whose inputs and outputs take other names, old -> new, with that recorded.

    ``interface`` are the names of all inputs and outputs before the renaming, ``step`` is the pass that renames.

    Each contract that knows its names gets the new ones, and the rename is put before it: what it says is what people
    read of the program as it is. A contract that speaks of a name that is gone and is now given again, and one whose
    class is not here, keep theirs, and the rename comes after them.
    """
    kept, rest = list(contracts), list[Contract]()
    touched, there = {*names, *names.values()}, frozenset(interface)
    while kept and kept[-1].knows_names and not touched & (kept[-1].names(Side.BEFORE) | kept[-1].names() - there):
        rest.append(kept.pop().renamed(names))
    return [*kept, RenamedIO(tuple(names.items()), step=step), *reversed(rest)]


def claims_in(contracts: Iterable[Contract]) -> Claims:
    """What a program's specializations claim to cover, by the last pass that made them; nothing where none did."""
    claims = Claims()
    for contract in contracts:
        claims = contract if isinstance(contract, Claims) else Claims() if isinstance(contract, ENDS) else claims
    return claims
