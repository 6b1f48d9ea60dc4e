"""Contracts on graphs and sizes say what was bound, cloned, packed or cut, and what specializations claim to cover."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from ..contract import Contract, port


@dataclass(frozen=True)
class SizesBound(Contract):
    """Sizes were written into a graph in place of symbols.

    Attributes:
        sizes: Symbol -> size.
    """

    kind: ClassVar[str] = "sizes-bound"
    compared: ClassVar[str] = "the original runs at the sizes that are bound"
    unseen: ClassVar[str] = "every other size"

    sizes: Mapping[str, int] = field(default_factory=dict[str, int])

    def sentence(self) -> str:
        """As people read it."""
        return f"sizes bound: {', '.join(f'{name}={size}' for name, size in self.sizes.items())}"


@dataclass(frozen=True)
class _OfOneGraph(Contract):
    """The base of contracts that say where one graph came from."""

    graph: str = ""
    base: str = ""

    def is_about(self, graph: str) -> bool:
        """The graph that was made."""
        return graph == self.graph

    def graphs_before(self, name: str) -> tuple[str, ...]:
        """The graph it was made of."""
        return (self.base,) if name == self.graph else (name,)


@dataclass(frozen=True)
class CloneOf(_OfOneGraph):
    """A graph is a clone of another one for one role and speculative length.

    Attributes:
        graph: The clone.
        base: The graph whose nodes it has.
        role: ``prefill`` or ``decode``.
        k: Speculative tokens of a decode.
    """

    kind: ClassVar[str] = "clone-of"
    compared: ClassVar[str] = (
        "the clone runs in the role and with the K that it claims, and is held against the original, one token a run"
    )
    unseen: ClassVar[str] = "texts longer than those played"

    role: str = ""
    k: int | None = None

    def sentence(self) -> str:
        """As people read it."""
        k = f" K={self.k}" if self.k is not None else ""
        return f"clone: {self.graph}: of {self.base}, {self.role}{k}"


@dataclass(frozen=True)
class LayerCut(_OfOneGraph):
    """A graph is one layer of another one; it takes and gives tensors under the names that they have there.

    Attributes:
        graph: The layer.
        base: The graph that it was cut out of.
        layer: Its number.
        hidden: The hidden states that come in.
        result: The hidden states that leave.
    """

    kind: ClassVar[str] = "layer-cut"
    compared: ClassVar[str] = (
        "the layer is fed what the whole original computes on its way, and must give what comes next there"
    )
    unseen: ClassVar[str] = "hidden rows that no token of the original leads to"
    assumes: ClassVar[bool] = True

    layer: int = 0
    hidden: str = ""
    result: str = ""

    def sentence(self) -> str:
        """As people read it."""
        return f"layer={self.layer}: {self.graph}: of {self.base}, {self.hidden} to {self.result}"


@dataclass(frozen=True)
class Packed(Contract):
    """Several graphs are one, which chooses among them by its sizes.

    Attributes:
        graph: The one.
        parts: What it was packed of.
    """

    kind: ClassVar[str] = "packed"
    compared: ClassVar[str] = "every part runs at the sizes that choose it"
    unseen: ClassVar[str] = "sizes that no specialization names"

    graph: str = ""
    parts: tuple[str, ...] = ()

    def is_about(self, graph: str) -> bool:
        """The graph that was made."""
        return graph == self.graph

    def graphs_before(self, name: str) -> tuple[str, ...]:
        """Its parts."""
        return self.parts if name == self.graph else (name,)

    def sentence(self) -> str:
        """As people read it."""
        return f"packed: {self.graph}: of {', '.join(self.parts)}"


@dataclass(frozen=True)
class SplitInto(Contract):
    """A graph is several, run one after the other: what one hands on is what the next one takes, by its name.

    Attributes:
        graph: What it was.
        parts: The graphs, in the order in which they run.
        handed: What parts hand on and the graph did not give: hidden states, and values carried beside them.
    """

    kind: ClassVar[str] = "split-into"
    compared: ClassVar[str] = "the parts run as the graph that they were; each part alone gives the same on the way"
    unseen: ClassVar[str] = "hidden rows that no token of the original leads to"

    graph: str = ""
    parts: tuple[str, ...] = ()
    handed: tuple[str, ...] = port(default=())

    def is_about(self, graph: str) -> bool:
        """The parts."""
        return graph in self.parts

    def graphs_before(self, name: str) -> tuple[str, ...]:
        """The graph that they were."""
        return (self.graph,) if name in self.parts else (name,)

    def sentence(self) -> str:
        """As people read it."""
        return f"split: {self.graph}: {', '.join(self.parts)}"


@dataclass(frozen=True)
class Claims(Contract):
    """What the specializations say of themselves; the last claims of a program count.

    Attributes:
        prefill: Whether there is a prefill of more than one token.
        ks: The numbers of speculative tokens that they decode with.
    """

    kind: ClassVar[str] = "claims"
    compared: ClassVar[str] = "every claim has to have run, or the verdict is *not verified*"

    prefill: bool = False
    ks: tuple[int, ...] = ()

    def sentence(self) -> str:
        """As people read it."""
        parts = [*(["a prefill"] if self.prefill else []), *(f"K={k}" for k in self.ks)]
        return f"claims: {', '.join(parts) or 'nothing'}"


@dataclass(frozen=True)
class Assumption(Contract):
    """Something that must hold of the inputs and that no class can check: a sentence for people, and nothing else.

    Attributes:
        text: The sentence.
    """

    kind: ClassVar[str] = "assumption"
    compared: ClassVar[str] = "nothing: the sentence is for people"
    unseen: ClassVar[str] = "whether it holds"
    assumes: ClassVar[bool] = True

    text: str = ""

    def sentence(self) -> str:
        """The sentence."""
        return self.text
