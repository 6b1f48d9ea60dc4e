"""A sweep finds symbolic shapes, the content of small integer tensors, and contradictions."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from ...symbolic.dims import Dim, Expr

Shape = tuple[Dim, ...]  # an unknown dimension is a fresh symbol ("?12"), equal to nothing but itself
Item = Dim | bool

MAX_ITEMS = 1024  # larger integer tensors are data, not shape arithmetic


class Trust(enum.Enum):
    """Which declared shapes a sweep believes: exporters' value infos can lie, graph inputs are the contract."""

    VALUE_INFOS = "value infos"
    INPUTS = "inputs"


class IntTensor(NamedTuple):
    """The content of a small integer or bool tensor, row-major; an item is an integer, an expression, or a bool.

    A float tensor whose items are exact integers (a length cast to float and back) is held the same way.
    """

    shape: tuple[int, ...]
    items: tuple[Item, ...]
    dtype: ir.DataType

    @property
    def concrete(self) -> bool:
        """True where no item depends on a symbol."""
        return not any(isinstance(item, Expr) for item in self.items)

    def numpy(self) -> np.ndarray:
        """The content as an array of its dtype; ValueError where an item is symbolic."""
        if not self.concrete:
            raise ValueError(f"symbolic content {self.items}")
        return np.array(self.items, dtype=self.dtype.numpy()).reshape(self.shape)


class Clash(NamedTuple):
    """Two facts about one value that cannot both hold; ``node`` is None for a graph input."""

    node: ir.Node | None
    value: ir.Value
    expected: object
    got: object


@dataclass(slots=True)
class Facts:
    """The facts of one sweep; ask with the values of the model that was swept."""

    shapes: dict[ir.Value, Shape] = field(default_factory=dict[ir.Value, Shape])
    contents: dict[ir.Value, IntTensor] = field(default_factory=dict[ir.Value, IntTensor])
    clashes: list[Clash] = field(default_factory=list[Clash])

    def shape(self, value: ir.Value) -> Shape | None:
        """The symbolic shape; None where even the rank is unknown."""
        return self.shapes.get(value)

    def ints(self, value: ir.Value) -> IntTensor | None:
        """The content of a small integer or bool tensor; None where it is data or unknown."""
        return self.contents.get(value)
