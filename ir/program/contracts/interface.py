"""Contracts on inputs and outputs say that they were renamed, cast, put on a grid, or fixed for good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ...core.errors import InputError
from ..contract import Array, Arrays, Contract, ContractBroken, Side, port


@dataclass(frozen=True)
class RenamedIO(Contract):
    """Inputs and outputs have other names.

    Attributes:
        pairs: Old name and new, all at once.
    """

    kind: ClassVar[str] = "renamed-io"
    compared: ClassVar[str] = "arrays keep their values under other names"
    knows_names: ClassVar[bool] = False  # two renames stay two: which of them an original knows depends on the original

    pairs: tuple[tuple[str, str], ...] = ()

    @property
    def new(self) -> dict[str, str]:
        """Old name -> new."""
        return dict(self.pairs)

    @property
    def old(self) -> dict[str, str]:
        """New name -> old."""
        return {new: old for old, new in self.pairs}

    def adapt_inputs(self, feeds: Arrays) -> dict[str, Array]:
        """The same arrays under their new names."""
        return {self.new.get(name, name): array for name, array in feeds.items()}

    def restored(self, feeds: Arrays) -> dict[str, Array]:
        """The same arrays under their old names."""
        return {self.old.get(name, name): array for name, array in feeds.items()}

    def expected(self, outputs: Arrays, feeds: Arrays) -> dict[str, Array]:
        """The same arrays under their new names."""
        return self.adapt_inputs(outputs)

    def input_before(self, name: str) -> str:
        """The old name."""
        return self.old.get(name, name)

    def output_before(self, name: str) -> str:
        """The old name."""
        return self.old.get(name, name)

    def sentence(self) -> str:
        """As people read it."""
        return f"renamed: {', '.join(f'{old} is {new}' for old, new in self.pairs)}"


Scalar = bool | int | float


@dataclass(frozen=True)
class FixedSwitch(Contract):
    """An input is gone: the result is what the graph before does with one value of it.

    Attributes:
        input: The input.
        value: What it is fixed to: one value for all elements, or one for each in row-major order.
    """

    kind: ClassVar[str] = "fixed-switch"
    compared: ClassVar[str] = "the original runs with the switch at the one value"
    unseen: ClassVar[str] = "what the original does with the other value"
    assumes: ClassVar[bool] = True

    input: str = port(Side.BEFORE)
    value: Scalar | tuple[Scalar, ...] = False

    def constrained(self, feeds: Arrays) -> dict[str, Array]:
        """The switch as it is fixed."""
        return {name: self._fixed(array) if name == self.input else array for name, array in feeds.items()}

    def holds(self, feeds: Arrays) -> None:
        """Raises ContractBroken for another value."""
        held = feeds.get(self.input)
        if held is None:
            return
        compared = held.astype(bool) if isinstance(self.value, bool) else held
        fixed = self._fixed(compared)
        if compared.shape != fixed.shape or (compared != fixed).any():
            raise ContractBroken(
                "the result has this switch fixed",
                where=f"input {self.input!r}",
                found=str(not self.value).lower() if isinstance(self.value, bool) else str(held.tolist()),
                wanted=self._spelled(),
            )

    def adapt_inputs(self, feeds: Arrays) -> dict[str, Array]:
        """Without the switch."""
        return {name: array for name, array in feeds.items() if name != self.input}

    def sentence(self) -> str:
        """As people read it."""
        return f"fixed: {self.input}: {self._spelled()}"

    def _fixed(self, array: Array) -> Array:
        """The value in the element type of ``array``, and in its shape where that has as many elements."""
        if not isinstance(self.value, tuple):
            return np.full_like(array, self.value)
        fixed = np.asarray(self.value).astype(array.dtype)
        return fixed.reshape(array.shape) if fixed.size == array.size else fixed

    def _spelled(self) -> str:
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        return ", ".join(str(value).lower() for value in values)


@dataclass(frozen=True)
class CastIO(Contract):
    """Inputs and outputs have another element type, and hold the same numbers.

    Attributes:
        inputs: The inputs.
        outputs: The outputs.
        dtype: Their element type now, as onnx names it: ``INT32``.
    """

    kind: ClassVar[str] = "cast-io"
    compared: ClassVar[str] = "arrays are cast and compared as numbers"
    unseen: ClassVar[str] = (
        "numbers that the new element type cannot hold: cases feed token ids and positions, which fit"
    )

    inputs: tuple[str, ...] = port(default=())
    outputs: tuple[str, ...] = port(default=())
    dtype: str = "INT32"

    def __post_init__(self) -> None:
        """InputError for an element type that is none."""
        numpy_type(self.dtype, self.kind)

    def adapt_inputs(self, feeds: Arrays) -> dict[str, Array]:
        """The inputs in their new element type."""
        return self._cast(feeds, self.inputs)

    def expected(self, outputs: Arrays, feeds: Arrays) -> dict[str, Array]:
        """The outputs in their new element type."""
        return self._cast(outputs, self.outputs)

    def _cast(self, arrays: Arrays, names: tuple[str, ...]) -> dict[str, Array]:
        dtype = numpy_type(self.dtype, self.kind)
        return {name: array.astype(dtype) if name in names else array for name, array in arrays.items()}

    def sentence(self) -> str:
        """As people read it."""
        return f"cast: {', '.join((*self.inputs, *self.outputs))}: {self.dtype}"


@dataclass(frozen=True)
class IntegersNarrowed(CastIO):
    """Integers are 32-bit ones, for they are known to fit.

    Attributes:
        largest: No token, position, or size of an axis is above it.
    """

    kind: ClassVar[str] = "integers-narrowed"
    compared: ClassVar[str] = "integers are cast to 32 bits and compared as numbers"
    unseen: ClassVar[str] = "tokens, positions and sizes above the largest that was assumed"
    assumes: ClassVar[bool] = True

    largest: int = 1 << 24

    def holds(self, feeds: Arrays) -> None:
        """Raises ContractBroken for a number or a size above the largest."""
        for name in self.inputs:
            held = feeds.get(name)
            if held is None or not held.size:
                continue
            found = max(int(np.abs(held).max()), *held.shape, 0)
            if found > self.largest:
                raise ContractBroken(
                    "larger than integers were narrowed for",
                    where=f"input {name!r}",
                    found=str(found),
                    wanted=f"at most {self.largest}",
                )

    def sentence(self) -> str:
        """As people read it."""
        names = ", ".join((*self.inputs, *self.outputs))
        return f"narrowed: {names}: {self.dtype}, no token, position or size above {self.largest}"


@dataclass(frozen=True)
class Grid:
    """The grid of a quantized input or output: ``number = (integer - zero) * scale``, along ``axis`` where several."""

    dtype: str
    scale: tuple[float, ...]
    zero: tuple[int, ...] = (0,)
    axis: int | None = None

    def quantized(self, array: Array) -> Array:
        """Integers for numbers, rounded to even and saturated as QuantizeLinear does (onnx opset 21)."""
        dtype = numpy_type(self.dtype, "quantized-io")
        scale, zero = self._along(array)
        limits = np.iinfo(dtype)
        integers = np.rint(array.astype(np.float32) / scale).astype(np.int64) + zero
        return np.clip(integers, limits.min, limits.max).astype(dtype)

    def numbers(self, array: Array) -> Array:
        """FLOAT numbers for integers, as DequantizeLinear gives them."""
        scale, zero = self._along(array)
        return ((array.astype(np.int64) - zero).astype(np.float32) * scale).astype(np.float32)

    def _along(self, array: Array) -> tuple[Array, Array]:
        """Scale and zero point in a shape that goes with the array."""
        shape = [1] * array.ndim
        if self.axis is not None and array.ndim:
            shape[self.axis] = -1
        scale = np.asarray(self.scale, np.float32).reshape(shape if array.ndim else ())
        zero = np.asarray(self.zero, np.int64).reshape(shape if array.ndim and len(self.zero) > 1 else ())
        return scale, zero


@dataclass(frozen=True)
class QuantizedIO(Contract):
    """Inputs and outputs are integers of a grid.

    Attributes:
        ports: The inputs and outputs, each with the grid of the same place in ``grids``.
        grids: Their grids.
    """

    kind: ClassVar[str] = "quantized-io"
    compared: ClassVar[str] = "the original's numbers are put on the grid, rounded to even and saturated"
    unseen: ClassVar[str] = "what rounding costs: `compare` measures that"

    ports: tuple[str, ...] = port()
    grids: tuple[Grid, ...] = ()

    def __post_init__(self) -> None:
        """InputError where there is not one grid of integers each."""
        if len(self.ports) != len(self.grids):
            raise InputError(f"contract {self.kind!r}: not one grid each", found=f"{len(self.grids)}")
        for grid in self.grids:
            if numpy_type(grid.dtype, self.kind).kind not in "iu":
                raise InputError(f"contract {self.kind!r}: no integers", found=grid.dtype)

    def adapt_inputs(self, feeds: Arrays) -> dict[str, Array]:
        """Integers for the numbers of the inputs."""
        return self._quantized(feeds)

    def restored(self, feeds: Arrays) -> dict[str, Array]:
        """Numbers for the integers of the inputs."""
        grids = dict(zip(self.ports, self.grids, strict=True))
        return {
            name: grids[name].numbers(array) if name in grids and array.dtype.kind in "iu" else array
            for name, array in feeds.items()
        }

    def expected(self, outputs: Arrays, feeds: Arrays) -> dict[str, Array]:
        """Integers for the numbers of the outputs."""
        return self._quantized(outputs)

    def _quantized(self, arrays: Arrays) -> dict[str, Array]:
        grids: Mapping[str, Grid] = dict(zip(self.ports, self.grids, strict=True))
        return {
            name: grids[name].quantized(array) if name in grids and array.dtype.kind not in "iu" else array
            for name, array in arrays.items()
        }

    def sentence(self) -> str:
        """As people read it."""
        return f"quantized: {', '.join(f'{p}: {g.dtype}' for p, g in zip(self.ports, self.grids, strict=True))}"


def numpy_type(name: str, kind: str) -> np.dtype[Any]:
    """The element type of that name; InputError where there is none."""
    try:
        return ir.DataType[name].numpy()
    except (KeyError, TypeError):
        raise InputError(f"contract {kind!r}: no element type", found=name) from None
