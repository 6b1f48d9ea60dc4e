"""A contract, as verification needs it, is the chain between an original and a result, and what inputs keep it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ...ir.core.errors import UnknownNameError, UsageError
from ...ir.interface.roles import Role
from ...ir.program.contracts.chain import Chain
from ...ir.program.contracts.logits import BestTokens, LastRows
from ...ir.program.contracts.lowered import OperatorsLowered, RightPadded
from ...ir.program.contracts.positions import AnyPositions, PositionRows, ZeroPosition, first_rows
from ...ir.program.contracts.sampling import SampledTokens
from ...ir.program.program import Program
from ..decode.cases import Case, Padding
from ..session.subject import Subject

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Contract:
    """The chain of contracts between a graph of the original and one of the result, and names across it."""

    chain: Chain = field(default_factory=Chain)

    @classmethod
    def of(cls, original: Program, result: Program, graph: str | None = None) -> Contract:
        """The contracts on one graph of the result, on all without a graph."""
        return cls(Chain.between(original, result, graph))

    @property
    def fixed(self) -> dict[str, bool]:
        """Switches that a pass has set for good, by the original's names."""
        return self.chain.switches

    @property
    def any_order(self) -> bool:
        """True where some input may hold its positions in any order."""
        return any(isinstance(link, AnyPositions) for link in self.chain.links)

    @property
    def lowered(self) -> bool:
        """True where fused operators were spelled out."""
        return any(isinstance(link, OperatorsLowered) for link in self.chain.links)

    @property
    def right_padded(self) -> bool:
        """True where padding may stand behind tokens alone."""
        return any(isinstance(link, RightPadded) for link in self.chain.links)

    @property
    def closeness(self) -> float:
        """How far outputs may lie from what is expected, over each output's largest value."""
        return max((link.closeness for link in self.chain.links), default=0.0)

    @property
    def changes_logits(self) -> bool:
        """True where rows of logits were left out, or token ids leave in their place."""
        return any(isinstance(link, LastRows | BestTokens | SampledTokens) for link in self.chain.links)

    def old_input(self, name: str) -> str:
        """The original's name of an input."""
        return self.chain.input_before(name)

    def old_output(self, name: str) -> str:
        """The original's output whose rows an output of the result has."""
        return self.chain.output_before(name)

    def on(self, graph: str) -> Chain:
        """The contracts that lead to one graph of the result: others may have passes of their own."""
        return Chain.of(self.chain.links, graph, self.chain.since)

    def answered(self, graph: str, name: str, logits: np.ndarray, found: np.ndarray) -> np.ndarray:
        """The original's logits, ``[run, row, …]``, as an output of ``graph`` must give them.

        Token ids are compared with the logits themselves, among which equals may stand.
        """
        chain = self.on(graph)
        links, best = chain.links, None
        for at, link in enumerate(links):
            if best is None and isinstance(link, BestTokens | SampledTokens) and link.step >= chain.since:
                best, chain = link, replace(chain, links=links[:at])
        name = name if best is None else best.logits
        after = chain.expected({chain.output_before(name): logits}, {}).get(name)
        alike = after is not None and (best is not None or (after.dtype, after.shape) == (found.dtype, found.shape))
        return after if after is not None and alike else logits

    def allowed(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Generated inputs of the original as the contracts allow them; the case has planned its positions already."""
        for link, back in self.chain.in_original_names():
            inputs = inputs if isinstance(link, PositionRows) else link.renamed(back).constrained(inputs)
        return dict(inputs)


def check_empty(subject: Subject, kept: Collection[str], given: Arrays) -> None:
    """Raises UsageError for a given state that the result has no more and that is not what a first run starts from.

    A cache that is written in place must also have a row to spare where positions hold padding: -1 writes the last row.
    """
    padded = any((given[v.name or ""] < 0).any() for v in subject.inputs(Role.POSITIONS) if v.name in given)
    longest = max(
        (given[v.name or ""].max(initial=-1) + 1 for v in subject.inputs(Role.POSITIONS) if v.name in given), default=0
    )
    for name in given.keys() & subject.by_input.keys() - set(kept):
        state, array = subject.by_input[name], given[name]
        if array.any():
            hint = "Leave it out, and an empty one is used."
            raise UsageError(
                "the result starts from an empty state", where=f"input {name!r}", found="values", hint=hint
            )
        if state.in_place and padded and state.axis is not None and array.shape[state.axis] <= longest:
            wanted = f"more than {longest} rows, for padding writes the last"
            raise UsageError(
                "no room for padding", where=f"input {name!r}", found=array.shape[state.axis], wanted=wanted
            )


def check_given(subject: Subject, contract: Contract, given: Arrays) -> Case:
    """The case that given inputs are, so that what they leave out can be built.

    Raises UsageError for a name that is no input, for another rank or element type, for no tokens to tell the size
    from, and for what a contract excludes.
    """
    known = {value.name or "": value for value in subject.model.graph.inputs}
    for name, array in given.items():
        if name not in known:
            raise UnknownNameError("input", name, known)
        dtype = known[name].dtype
        if dtype is not None and array.dtype != dtype.numpy():
            raise UsageError("wrong element type", where=name, found=array.dtype, wanted=dtype.numpy())
        shape = known[name].shape
        if shape is not None and len(shape) != array.ndim:
            raise UsageError("wrong rank", where=name, found=list(array.shape), wanted=str(shape))
    contract.chain.check(given)
    positions: np.ndarray | None = None
    for link, back in contract.chain.in_original_names():
        if isinstance(link, PositionRows) and not isinstance(link, ZeroPosition):
            held = given.get(link.renamed(back).input)
            positions = first_rows(held) if held is not None else positions
    return _case_of(subject, given, positions)


def _case_of(subject: Subject, given: Arrays, positions: np.ndarray | None) -> Case:
    for role in (Role.TOKEN_IDS, Role.EMBEDDINGS):
        for value in subject.inputs(role):
            tokens = given.get(value.name or "")
            if tokens is not None and tokens.ndim >= 2:
                batch, length = tokens.shape[:2]
                rows = positions if positions is not None else np.tile(np.arange(length), (batch, 1))
                return Case(batch, length, Padding.FULL, rows, 0)
    raise UsageError("no token ids or embeddings among the given inputs", found=", ".join(given) or "nothing")
