"""A target's file knows this much of a graph, and a further target is one file that keeps this protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

import onnx_ir as ir

from ..core.specialization import ManifestInvalid, Specialization
from ..interface.analysis import analysis_of
from ..symbolic.dims import Dim, free_symbols, substitute
from ..symbolic.symbols import dims_of


@dataclass(frozen=True)
class Port:
    """An input or output of a graph as a manifest needs it.

    Attributes:
        name: The tensor's name.
        dtype: The element type under numpy's name, ``float32`` for FLOAT.
        shape: The dimensions in canonical form, None for an unknown rank.
        spelled: The dimensions as the graph spells them, empty for a number.
    """

    name: str
    dtype: str
    shape: tuple[Dim | None, ...] | None
    spelled: tuple[str, ...] = ()

    def sizes(self, binding: Mapping[str, int]) -> tuple[int, ...]:
        """The shape under ``binding``; ManifestInvalid where a dimension stays open."""
        if self.shape is None:
            raise ManifestInvalid("has no known rank", where=f"tensor {self.name!r}")
        return tuple(self._size(axis, dim, binding) for axis, dim in enumerate(self.shape))

    def _size(self, axis: int, dim: Dim | None, binding: Mapping[str, int]) -> int:
        size = None if dim is None else substitute(dim, binding)
        if isinstance(size, int):
            return size
        missing = ", ".join(sorted(free_symbols(size))) if size is not None else "a dimension without a name"
        raise ManifestInvalid(
            f"{missing} is bound by no specialization",
            where=f"tensor {self.name!r}, axis {axis}",
            found=str(dim),
            hint=_BIND.format(missing) if size is not None else "",
        )


_BIND = "Give bind={0}:SIZE to clone-decode or speculative, or symbols={0}:SIZE to specialize."


@dataclass(frozen=True)
class GraphInterface:
    """All that a target's files say about one graph.

    Attributes:
        graph: The graph's name; its file is ``<graph>.onnx``.
        specializations: Those that belong to it, in order.
        states: Input -> output of the states that remain.
        functions: Whether it has local functions.
        custom_io: Name -> precision, for names of this graph.
        partition: The file that spreads it over devices, empty for none.
        prefix: What the files' names begin with: empty where the program has one graph.
    """

    graph: str
    specializations: tuple[Specialization, ...] = ()
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    states: Mapping[str, str] = field(default_factory=dict[str, str])
    functions: bool = False
    custom_io: Mapping[str, str] = field(default_factory=dict[str, str])
    partition: str = ""
    prefix: str = ""

    def file(self, name: str) -> str:
        """The name of one of this graph's files."""
        return f"{self.prefix}{name}"


@dataclass(frozen=True)
class Command:
    """One call of the target's compiler, its arguments naming the files of the output folder."""

    program: str
    arguments: tuple[str, ...]


class Target(Protocol):
    """A compiler or runtime that a manifest is written for: one file of this package each, and one row in TARGETS."""

    @property
    def name(self) -> str:
        """The name in pipeline text."""
        ...

    @property
    def tolerated(self) -> frozenset[str]:
        """Symbols that the target takes though no graph has them."""
        ...

    @property
    def file(self) -> str:
        """The name of the file that ``read`` takes; several graphs have their own names before it."""
        ...

    def matches(self, data: object) -> bool:
        """Whether a parsed JSON or YAML file has this target's form, and no other's; a broken one has none."""
        ...

    def write(self, interface: GraphInterface) -> dict[str, str]:
        """File name -> text; ManifestInvalid where the target cannot say what the specializations want."""
        ...

    def read(self, text: str, *, where: str) -> list[Specialization]:
        """The specializations that a file of ``write`` holds; ManifestInvalid where it is none."""
        ...

    def commands(self, interface: GraphInterface) -> list[Command]:
        """The calls of the target's compiler that consume these files."""
        ...


def entries_of(data: object, key: str) -> list[dict[str, object]]:
    """The objects in the list that a file has under ``key``; empty where there is no such list."""
    found = cast("dict[str, object]", data).get(key) if isinstance(data, dict) else None
    items = cast("list[object]", found) if isinstance(found, list) else []
    return [cast("dict[str, object]", item) for item in items if isinstance(item, dict)]


def interface_of(
    name: str,
    model: ir.Model,
    specializations: tuple[Specialization, ...],
    *,
    custom_io: Mapping[str, str] | None = None,
    partition: str = "",
    prefix: str = "",
    binding: Mapping[str, int] | None = None,
) -> GraphInterface:
    """The interface of one graph of a program; ``binding`` are sizes that its file has for symbols of ``model``."""
    known = binding or {}
    inputs, outputs = (
        tuple(_port(value, known) for value in values) for values in (model.graph.inputs, model.graph.outputs)
    )
    own = {port.name for port in (*inputs, *outputs)}
    pairs = [(state.input, state.output) for state in analysis_of(model).states]
    states = {str(past.name): str(new.name) for past, new in pairs if past is not None and new is not None}
    return GraphInterface(
        graph=name,
        specializations=specializations,
        inputs=inputs,
        outputs=outputs,
        states=states,
        functions=bool(model.functions),
        custom_io={key: value for key, value in (custom_io or {}).items() if key in own},
        partition=partition,
        prefix=prefix,
    )


def _port(value: ir.Value, binding: Mapping[str, int]) -> Port:
    dtype = value.dtype
    spelled = "unknown" if dtype is None else _SPELLED.get(dtype, dtype.name.lower())
    texts = tuple("" if isinstance(dim, int) else dim.value or "" for dim in value.shape or ())
    dims = dims_of(value)
    bound = None if dims is None else tuple(None if dim is None else substitute(dim, binding) for dim in dims)
    return Port(value.name or "", spelled, bound, texts)


_SPELLED = {ir.DataType.FLOAT: "float32", ir.DataType.DOUBLE: "float64"}
