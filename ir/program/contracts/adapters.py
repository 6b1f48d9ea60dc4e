"""Contracts on adapters say which inputs hold low-rank matrices, which choose, and what was added to weights."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..contract import Array, Arrays, Contract, Side, port
from .interface import numpy_type

ANY_RANK = 4  # of matrices that are fed where the graph leaves their rank open
FOLDED_SUMS = 5e-6  # what W + BA and rows @ W + rows @ B @ A differ by in float32, over the largest value
FOLDED_HALF = 1e-2  # the same where a weight of half precision is rounded once more


@dataclass(frozen=True)
class Source:
    """An adapter that was read: its name, its place, and the sha256 of its weights."""

    name: str
    path: str
    sha256: str


@dataclass(frozen=True)
class AdapterInputs(Contract):
    """New inputs hold low-rank matrices, ``[in, rank]`` and ``[rank, out]``, the scale in the second.

    Attributes:
        modules: The module of each pair, as an adapter names it.
        downs: The input of each first matrix.
        ups: The input of each second one.
        widths: How many columns the rows of each have, and how many it gives.
        dtype: Their element type, as onnx names it.
        rank: Their rank, or empty the name of its symbol.
        retained: Outputs that give the inputs back.
    """

    kind: ClassVar[str] = "adapter-inputs"
    compared: ClassVar[str] = (
        "with zeros in the second matrices outputs are the original's; with random ones, those of the original with "
        "the product of the two added to its weights, within 5e-6"
    )
    unseen: ClassVar[str] = "what an adapter does to quantized weights is held against a path of its own beside them"

    modules: tuple[str, ...] = ()
    downs: tuple[str, ...] = port(Side.AFTER, default=())
    ups: tuple[str, ...] = port(Side.AFTER, default=())
    widths: tuple[tuple[int, int], ...] = ()
    dtype: str = "FLOAT"
    rank: int | str = "lora_rank"
    retained: tuple[str, ...] = port(Side.AFTER, default=())

    @property
    def size(self) -> int:
        """The rank of what is fed."""
        return self.rank if isinstance(self.rank, int) else ANY_RANK

    def adapt_inputs(self, feeds: Arrays) -> dict[str, Array]:
        """Matrices whose product is zero, the first of them not."""
        return {**feeds, **self.fed()}

    def fed(self) -> dict[str, Array]:
        """What every run is fed."""
        return self.matrices(zero=True)

    def expected(self, outputs: Arrays, feeds: Arrays) -> dict[str, Array]:
        """What comes in is given back."""
        given = dict(zip(self.retained, self.fed().values(), strict=False)) if self.retained else {}
        return {**outputs, **given}

    def comparable(self, name: str, expected: Array, found: Array, feeds: Arrays) -> tuple[Array, Array]:
        """Of a matrix of another rank, the part that both have."""
        if name not in self.retained or expected.ndim != found.ndim:
            return expected, found
        kept = tuple(slice(min(sizes)) for sizes in zip(expected.shape, found.shape, strict=True))
        return expected[kept], found[kept]

    def matrices(self, *, zero: bool) -> dict[str, Array]:
        """The same pairs in every run; zeros in the second matrices, or random numbers."""
        dtype, found = numpy_type(self.dtype, self.kind), dict[str, Array]()
        for down, up, (width, columns) in zip(self.downs, self.ups, self.widths, strict=True):
            rng = np.random.default_rng(zlib.crc32(down.encode()))
            found[down] = (rng.standard_normal((width, self.size)) / np.sqrt(width)).astype(dtype)
            drawn = rng.standard_normal((self.size, columns)) / 8
            found[up] = (np.zeros_like(drawn) if zero else drawn).astype(dtype)
        return found

    def sentence(self) -> str:
        """As people read it."""
        shown = ", ".join(self.modules[:4]) + (", …" if len(self.modules) > 4 else "")
        return f"adapters: {len(self.modules)} pairs of inputs of rank {self.rank}: {shown}"


@dataclass(frozen=True)
class AdapterSlots(Contract):
    """An input chooses, line by line of the batch, among adapters that lie in the graph; 0 is none of them.

    Attributes:
        ids: The input, ``[batch, 1]``.
        tokens: The input whose first axis is the batch.
        sources: The adapters, in the order of their numbers from 1 on.
        modules: The modules that one of them changes.
    """

    kind: ClassVar[str] = "adapter-slots"
    compared: ClassVar[str] = (
        "with number 0 outputs are the original's; with each other number, those of the original with that adapter in "
        "its weights, within 5e-6, the adapter read anew from its file"
    )

    unseen: ClassVar[str] = "lines of one batch with different numbers"

    ids: str = port(Side.AFTER)
    tokens: str = port(default="")
    sources: tuple[Source, ...] = ()
    modules: tuple[str, ...] = ()

    def adapt_inputs(self, feeds: Arrays) -> dict[str, Array]:
        """Number 0 for every line."""
        return {**feeds, self.ids: self.chosen(feeds, 0)}

    def chosen(self, feeds: Arrays, number: int) -> Array:
        """The same number for every line."""
        lines = len(feeds[self.tokens]) if self.tokens in feeds else 1
        return np.full((lines, 1), number, np.int64)

    def sentence(self) -> str:
        """As people read it."""
        numbered = ", ".join(f"{number}: {source.name}" for number, source in enumerate(self.sources, 1))
        return f"adapters: {self.ids} chooses 0: none, {numbered}"


@dataclass(frozen=True)
class WeightsFolded(Contract):
    """Adapters were added to the weights.

    Attributes:
        sources: The adapters.
        modules: The modules whose weights changed.
        dtype: The weights' element type, the narrowest.
    """

    kind: ClassVar[str] = "weights-folded"
    compared: ClassVar[str] = (
        "the original, with the adapters read anew from their files and computed beside its products, within 5e-6 "
        "(1e-2 where weights of half precision were rounded)"
    )

    unseen: ClassVar[str] = "what the adapters are worth: their files are taken at their word"

    sources: tuple[Source, ...] = ()
    modules: tuple[str, ...] = ()
    dtype: str = "FLOAT"

    def tolerance(self, name: str, found: Array) -> float:
        """A sum of weights has an order of its own."""
        return FOLDED_SUMS if self.dtype in ("FLOAT", "DOUBLE") else FOLDED_HALF

    def sentence(self) -> str:
        """As people read it."""
        return f"adapters folded: {', '.join(source.name for source in self.sources)} into {len(self.modules)} weights"
