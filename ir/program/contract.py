"""What a pass says of its result is a contract: what the inputs must hold, and how inputs and outputs relate."""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np

from ..core.errors import InputError, UsageError

if TYPE_CHECKING:  # pydantic costs as much to import as reading a small graph: only where an entry is read
    from pydantic import TypeAdapter

Array = np.ndarray
Arrays = Mapping[str, np.ndarray]


class Side(enum.Enum):
    """On which side of a pass an input or output has the name that a contract holds."""

    BEFORE = "before"  # the pass took it away
    AFTER = "after"  # the pass made it
    BOTH = "both"


@dataclass(frozen=True)
class Inner:
    """A value inside a graph, by its name.

    Without the name it is the output ``port`` that the node of ``beside`` leaves out, else the rows after ``layer``.
    """

    name: str
    beside: str = ""
    port: int = 0
    layer: int | None = None


class ContractBroken(UsageError):
    """Inputs that a result's contract does not allow; names the input and the row."""


def port(side: Side = Side.BOTH, **options: Any) -> Any:
    """A dataclass field that holds the name of an input or output, or several, so that renames find it."""
    return field(metadata={"side": side}, **options)


@dataclass(frozen=True)
class Contract:
    """The base of every contract: a frozen dataclass with a ``kind``, whose fields are what program.json holds.

    A subclass overrides what its pass changed; the defaults are those of a pass that changes neither inputs nor
    outputs. Fields that hold names of inputs or outputs are made by :func:`port`: str, or a tuple of str.

    Attributes:
        graphs: The graphs it is about, as they were named when it was recorded; empty for every graph.
        step: The pass that recorded it, counted over all runs of the program; the pass manager fills it in.
    """

    kind: ClassVar[str] = ""
    assumes: ClassVar[bool] = False
    """True where a caller of the result must know it: such sentences are shown as what the result assumes."""
    compared: ClassVar[str] = ""
    """What ``verify`` compares under it; docs/verify.md shows it."""
    unseen: ClassVar[str] = ""
    """What that comparison cannot see, or the result may not be fed."""
    closeness: ClassVar[float] = 0.0
    """How far outputs may lie from what is expected, over each output's largest value."""
    knows_names: ClassVar[bool] = True
    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid", "arbitrary_types_allowed": True}

    graphs: tuple[str, ...] = field(default=(), kw_only=True)
    step: int = field(default=0, kw_only=True, compare=False)

    def is_about(self, graph: str) -> bool:
        """Whether it says something of the graph."""
        return not self.graphs or graph in self.graphs

    def constrained(self, feeds: Arrays) -> dict[str, Array]:
        """Feeds of the graph before the pass that the contract allows, as near to ``feeds`` as may be."""
        return dict(feeds)

    def holds(self, feeds: Arrays) -> None:
        """Raises ContractBroken, naming input and row, for feeds of the graph before the pass that it excludes."""

    def adapt_inputs(self, feeds: Arrays) -> dict[str, Array]:
        """The feeds of the graph after the pass for those of the graph before it."""
        return dict(feeds)

    def restored(self, feeds: Arrays) -> dict[str, Array]:
        """Feeds of the graph before the pass that mean the same as those of the graph after it, named as before."""
        return dict(feeds)

    def expected(self, outputs: Arrays, feeds: Arrays) -> dict[str, Array]:
        """What the graph after the pass must give where the one before it gave ``outputs`` for ``feeds``."""
        return dict(outputs)

    def comparable(self, name: str, expected: Array, found: Array, feeds: Arrays) -> tuple[Array, Array]:
        """The parts of one output, named as after the pass, that both arrays hold; ``feeds`` as before the pass."""
        return expected, found

    def tolerance(self, name: str, found: Array) -> float:
        """What one output may differ by, over its largest value; named as after the pass."""
        return 0.0

    def stretch(self, name: str, outputs: Arrays, size: float) -> float:
        """By how much an error of the graph before grows on the way to one output: 1, or more for small differences.

        ``outputs`` are those of the graph before, ``size`` is the largest value of the output where it is compared.
        """
        return 1.0

    def output_before(self, name: str) -> str:
        """The output of the graph before the pass whose rows an output of the graph after it has."""
        return name

    def input_before(self, name: str) -> str:
        """The name that an input of the graph after the pass had before it."""
        return name

    def observed(self) -> tuple[Inner, ...]:
        """Values inside the graph before the pass that ``expected`` rests on: who compares makes them outputs."""
        return ()

    def graphs_before(self, name: str) -> tuple[str, ...]:
        """The graphs that a graph of the program was made of by the pass."""
        return (name,)

    def sentence(self) -> str:
        """What it says, for people; without the graphs."""
        return self.kind

    def names(self, *sides: Side) -> frozenset[str]:
        """The names of inputs and outputs that it holds, those on the given sides, all without any."""
        found: list[str] = []
        for item in _ports(type(self)):
            if not sides or item.metadata["side"] in sides:
                value = getattr(self, item.name)
                found += [value] if isinstance(value, str) else list(value)
        return frozenset(found) - {""}

    def renamed(self, names: Mapping[str, str]) -> Self:
        """The same contract where inputs and outputs of the result have other names: old -> new."""
        changed: dict[str, Any] = {}
        for item in _ports(type(self)):
            if item.metadata["side"] is not Side.BEFORE:
                changed[item.name] = _renamed(names, getattr(self, item.name))
        return replace(self, **changed) if changed else self

    def to_json(self) -> dict[str, Any]:
        """Its entry in program.json."""
        return {"kind": self.kind, **{item.name: _plain(self, item.name) for item in dataclasses.fields(self)}}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """The contract of an entry; InputError where a field is missing, unknown or of another type."""
        from pydantic import ValidationError

        given = {key: value for key, value in entry.items() if key != "kind"}
        try:
            return cast("Self", _adapter(cls).validate_python(given))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the entry"
            raise InputError(f"contract {cls.kind!r}: {place}: {first['msg']}") from None

    def __str__(self) -> str:
        about = f"{', '.join(self.graphs)}: " if self.graphs else ""
        return f"{about}{self.sentence()}"


@functools.cache
def _adapter(cls: type[Contract]) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _plain(contract: Contract, name: str) -> Any:
    """One field as JSON holds it; what is no plain value is written as pydantic writes the whole contract."""
    try:
        return as_json(getattr(contract, name))
    except TypeError:
        return _adapter(type(contract)).dump_python(contract, mode="json")[name]


def as_json(value: Any) -> Any:
    """Plain values, sequences, mappings, enumerations and dataclasses as JSON has them; TypeError for any other."""
    if isinstance(value, enum.Enum):
        return as_json(value.value)
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        entries = cast("Mapping[object, Any]", value)
        return {str(key): as_json(held) for key, held in entries.items()}
    if isinstance(value, list | tuple):
        return [as_json(held) for held in cast("list[Any]", value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: as_json(getattr(value, item.name)) for item in dataclasses.fields(value)}
    raise TypeError(type(value).__name__)


@functools.cache
def _ports(cls: type[Contract]) -> tuple[dataclasses.Field[Any], ...]:
    return tuple(item for item in dataclasses.fields(cls) if "side" in item.metadata)


def _renamed(names: Mapping[str, str], held: str | tuple[str, ...]) -> str | tuple[str, ...]:
    return names.get(held, held) if isinstance(held, str) else tuple(names.get(name, name) for name in held)
