"""The builder makes operators, constants, sizes and views; equal requests share one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ..core.scopes import Scope
from .recorder import Recorder

Source = int | tuple[ir.Value, int]
"""A dimension to emit: a number, or an axis of a value that is there at run time."""
INT64 = ir.DataType.INT64


class Builder(Recorder):
    """Writes the new nodes of one pass into one graph or function; see :class:`Recorder` for names and places.

    >>> builder = Builder(model.graph, "my-pass")
    >>> total = builder.op("Add", [a, builder.ints([1], "one")], "total")
    >>> builder.place_before(node)  # or place_after, place_front, place_end, replace

    Constants become initializers; in a function, which has none, Constant nodes. Equal numbers, dimensions and views
    are one value, placed where it was first asked for: ask in the order of the graph.
    """

    def __init__(self, scope: Scope, owner: str) -> None:
        """For the main graph, or a function."""
        super().__init__(scope, owner)
        self._constant_nodes = isinstance(scope, ir.Function)
        self._shared: dict[tuple[object, ...], ir.Value] = {}
        self._recorded_keys: list[tuple[object, ...]] = []

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        attributes: Mapping[str, Any] | None = None,
        shape: Sequence[int | str | None] | None = None,
        dtype: ir.DataType | None = INT64,
        *,
        domain: str = "",
        like: ir.Value | None = None,
        exact: bool = False,
    ) -> ir.Value:
        """The output of a new node, which a ``place_…`` method puts into the graph.

        ``dtype`` and ``shape`` are declared for it, nothing where ``dtype`` is None; ``like`` declares another value's
        instead. ``domain`` and ``exact`` as for :meth:`ops`, which makes nodes of several outputs.
        """
        value = self.ops(op_type, inputs, name, 1, attributes, domain=domain, exact=exact)[0]
        if like is not None:
            value.type, value.shape = like.type, like.shape
        elif dtype is not None:
            value.type = ir.TensorType(dtype)
            value.shape = ir.Shape(list(shape)) if shape is not None else None
        return value

    def share(self, key: tuple[object, ...], make: Callable[[], ir.Value]) -> ir.Value:
        """What ``make`` gave for ``key`` the first time. A node placed in a body is not shared outside of it."""
        if key not in self._shared:
            self._shared[key] = make()
            self._recorded_keys.append(key)
        return self._shared[key]

    def _take(self, scope: Scope) -> list[ir.Node]:
        for key in self._recorded_keys if scope is not self.graph else ():
            if not self._shared[key].is_initializer():
                del self._shared[key]
        self._recorded_keys.clear()
        return super()._take(scope)

    def constant(self, tensor: ir.TensorProtocol, name: str) -> ir.Value:
        """A new initializer, in a function a Constant node, that holds ``tensor``."""
        shape = tensor.shape.numpy()
        if self._constant_nodes:
            return self.op("Constant", [], name, {"value": tensor}, shape, tensor.dtype)
        tensor.name = self.fresh(name)
        value = ir.Value(name=tensor.name, shape=ir.Shape(shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def ints(self, numbers: Sequence[int] | int, name: str) -> ir.Value:
        """An int64 constant: 1-D, or a scalar for a bare int."""
        key = ("ints", numbers if isinstance(numbers, int) else tuple(numbers))
        return self.share(key, lambda: self.constant(ir.Tensor(np.asarray(numbers, dtype=np.int64)), name))

    def axes(self, axes: Sequence[int]) -> ir.Value:
        """The int64 constant that holds ``axes``, named after them."""
        return self.ints(axes, "axes_" + "_".join(map(str, axes)))

    def dims(self, sources: Sequence[Source], name: str) -> ir.Value:
        """A 1-D int64 value of the given dimensions; a constant where all are numbers."""
        numbers = [source for source in sources if isinstance(source, int)]
        if len(numbers) == len(sources):
            return self.ints(numbers, name)
        key = ("dims", tuple(s if isinstance(s, int) else (id(s[0]), s[1]) for s in sources))
        return self.share(key, lambda: self._joined(sources, name))

    def _joined(self, sources: Sequence[Source], name: str) -> ir.Value:
        parts = [self.ints([s], f"{s}") if isinstance(s, int) else self._dim(*s) for s in sources]
        return parts[0] if len(parts) == 1 else self.op("Concat", parts, name, {"axis": 0}, (len(parts),))

    def _dim(self, value: ir.Value, axis: int) -> ir.Value:
        """One dimension, 1-D: a Gather of the value's Shape."""
        name = f"{value.name}/dim_{axis}"
        return self.share(
            ("dim", id(value), axis),
            lambda: self.op("Gather", [self._shape(value), self.ints([axis], f"{axis}")], name, {"axis": 0}, (1,)),
        )

    def _shape(self, value: ir.Value) -> ir.Value:
        name, known = f"{value.name}/shape", (len(value.shape),) if value.shape is not None else None
        return self.share(("shape", id(value)), lambda: self.op("Shape", [value], name, shape=known))

    def scalar(self, source: Source, name: str) -> ir.Value:
        """One dimension as an int64 scalar, as Range wants its operands (ONNX Range-11: "Scalar. …")."""
        if isinstance(source, int):
            return self.ints(source, name)
        key = ("scalar", id(source[0]), source[1])
        return self.share(key, lambda: self._squeezed(self.dims([source], name), name))

    def _squeezed(self, value: ir.Value, name: str) -> ir.Value:
        return self.op("Squeeze", [value, self.ints([0], "first")], name, shape=())

    def count(self, source: Source, name: str) -> ir.Value:
        """``0 … source - 1``, 1-D int64."""
        if isinstance(source, int):
            return self.ints(list(range(source)), name)
        key = ("count", id(source[0]), source[1])
        return self.share(key, lambda: self._range(source, name))

    def _range(self, source: Source, name: str) -> ir.Value:
        operands = [self.ints(0, "zero"), self.scalar(source, f"{name}/limit"), self.ints(1, "one")]
        return self.op("Range", operands, name)

    def cast(self, value: ir.Value, dtype: ir.DataType, name: str) -> ir.Value:
        """``value`` as ``dtype``; itself where it is that already."""
        return value if value.dtype == dtype else self.op("Cast", [value], name, {"to": int(dtype)}, dtype=dtype)

    def unsqueeze(self, value: ir.Value, axes: Sequence[int], name: str) -> ir.Value:
        """``value`` with new axes of one; itself where there are none."""
        if not axes:
            return value
        key, dtype = ("unsqueeze", id(value), tuple(axes)), value.dtype or INT64
        return self.share(key, lambda: self.op("Unsqueeze", [value, self.axes(axes)], name, dtype=dtype))
