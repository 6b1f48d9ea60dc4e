"""What a result assumes of its inputs, and whether given inputs keep it."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from ...ir.core.errors import UnknownNameError, UsageError
from ...ir.interface.roles import Role
from ...ir.program.program import Program
from ..decode.cases import Case, Padding
from ..session.subject import Subject
from .kept_logits import KeptLogits


class Order(enum.Enum):
    """What an input that says where a cache is written is assumed to hold."""

    ORDERED = "0 … n-1 in order, then -1"
    ANY = "each of 0 … n-1 once, -1 anywhere"
    ZERO = "0"


_FIXED = re.compile(r"(?:^|: )fixed: (?P<input>.*): (?P<value>true|false)$")
_ASSUMPTION = re.compile(r"(?:^|: )positions=(ordered|any)(?:: (?P<input>.*?))?(?:: (?P<how>.*))?$")


@dataclass(frozen=True)
class Contract:
    """The recorded assumptions on position inputs (by the original's names), and the renames since then."""

    orders: Mapping[str, Order] = field(default_factory=dict[str, Order])
    renames: Mapping[str, str] = field(default_factory=dict[str, str])  # new name -> the original's
    logits: KeptLogits = field(default_factory=KeptLogits)
    fixed: Mapping[str, bool] = field(default_factory=dict[str, bool])  # switches that a pass has set for good

    @classmethod
    def of(cls, original: Program, program: Program) -> Contract:
        """Reads what the program's passes recorded: lines ``positions=ordered|any: INPUT: how``."""
        renames = renames_between(original, program)
        orders: dict[str, Order] = {}
        for line in program.assumptions:
            found = _ASSUMPTION.search(line)
            if found:
                name = found["input"] or ""
                asked = Order.ANY if found[1] == "any" else Order.ORDERED
                orders[renames.get(name, name)] = Order.ZERO if found["how"] == "is 0" else asked
        switches = (_FIXED.search(line) for line in program.assumptions)
        fixed = {renames.get(s["input"], s["input"]): s["value"] == "true" for s in switches if s}
        return cls(orders, renames, KeptLogits.of(program.assumptions, renames), fixed)

    def switched(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The original's inputs with every fixed switch as the result has it."""
        return {
            name: np.full_like(array, self.fixed[name]) if name in self.fixed else array
            for name, array in inputs.items()
        }

    @property
    def any_order(self) -> bool:
        """True where some input may hold its positions in any order."""
        return Order.ANY in self.orders.values()

    def old_input(self, name: str) -> str:
        """The original's name of an input."""
        return self.renames.get(name, name)

    def old_output(self, name: str) -> str:
        """The original's name of an output."""
        return self.renames.get(name, name)


def renames_between(original: Program, result: Program) -> dict[str, str]:
    """New names and the names they had in ``original``, through every rename that ``result`` saw since then."""
    from ...passes.pipeline import parse_pipeline

    before, texts = _pass_texts(original), _pass_texts(result)
    renames: dict[str, str] = {}
    for text in texts[len(before) :] if texts[: len(before)] == before else texts:
        if not text.startswith("rename-io"):
            continue
        for step in parse_pipeline(text):
            moved: dict[str, str] = dict(getattr(step, "map", ()))
            changed = {new: renames.get(old, old) for old, new in moved.items()}
            renames = {new: old for new, old in renames.items() if new not in moved} | changed
    return renames


def _pass_texts(program: Program) -> list[str]:
    """Every pass that ran on the program, in this run and in those before it was saved."""
    saved = [entry.text for run in program.earlier for entry in run.passes]
    return saved + [record.text for record in program.history]


def check_empty(subject: Subject, kept: Collection[str], given: Mapping[str, np.ndarray]) -> None:
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


def check_given(subject: Subject, contract: Contract, given: Mapping[str, np.ndarray]) -> Case:
    """The case that given inputs are, so that what they leave out can be built.

    Raises UsageError for a name that is no input, for another rank or element type, for no tokens to tell the size
    from, and for positions that break the recorded assumption.
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
    positions: np.ndarray | None = None
    for name, order in contract.orders.items():
        told = [name] if name in known else [value.name or "" for value in subject.inputs(Role.POSITIONS)]
        for held in set(told) & given.keys():
            check_positions(held, given[held], order)
            positions = _first_rows(given[held]) if order is not Order.ZERO else positions
    return _case_of(subject, given, positions)


def _first_rows(positions: np.ndarray) -> np.ndarray:
    """``[batch, length]``: the row of a multi-part position that says where caches are written."""
    return positions.reshape(-1, *positions.shape[-2:])[0] if positions.ndim > 1 else positions.reshape(1, -1)


def check_positions(name: str, positions: np.ndarray, order: Order) -> None:
    """Raises UsageError, naming the input and the row, unless every row holds what ``order`` says."""
    for number, row in enumerate(_first_rows(positions)):
        if not _KEEPS[order](row):
            raise UsageError(
                "these positions are outside what the result assumes",
                where=f"input {name!r}, row {number}",
                found=[int(x) for x in row[:16]],
                wanted=order.value,
                hint="Gaps and offsets make the cached original attend to rows that were never written.",
            )


def _is_ordered(row: np.ndarray) -> bool:
    count = int((row >= 0).sum())
    return np.array_equal(row[:count], np.arange(count)) and bool((row[count:] == -1).all())


def _is_permutation(row: np.ndarray) -> bool:
    kept = np.sort(row[row >= 0])
    return np.array_equal(kept, np.arange(kept.size)) and bool((row[row < 0] == -1).all())


_KEEPS: Mapping[Order, Callable[[np.ndarray], bool]] = {
    Order.ORDERED: _is_ordered,
    Order.ANY: _is_permutation,
    Order.ZERO: lambda row: not row.any(),
}


def _case_of(subject: Subject, given: Mapping[str, np.ndarray], positions: np.ndarray | None) -> Case:
    for role in (Role.TOKEN_IDS, Role.EMBEDDINGS):
        for value in subject.inputs(role):
            tokens = given.get(value.name or "")
            if tokens is not None and tokens.ndim >= 2:
                batch, length = tokens.shape[:2]
                rows = positions if positions is not None else np.tile(np.arange(length), (batch, 1))
                return Case(batch, length, Padding.FULL, rows, 0)
    raise UsageError("no token ids or embeddings among the given inputs", found=", ".join(given) or "nothing")
