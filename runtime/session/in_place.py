"""Runs a graph on memory that stays where it lies: what a run reads and writes in place is bound, and never copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from ...ir.symbolic.symbols import dims_of
from .session import Optimization, RunError, Session

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Bound:
    """Where a run reads and writes.

    Attributes:
        fed: The arrays that inputs are copied into.
        given: The arrays of results whose sizes are known.
        order: Output -> its place among what onnxruntime gives.
        memory: What is read and written where it lies: onnxruntime keeps no reference to it.
    """

    binding: Any
    fed: Arrays
    given: Arrays
    order: Mapping[str, int]
    memory: tuple[Any, ...]


class InPlaceSession(Session):
    """A session whose runs read and write memory of the caller's."""

    def __init__(self, model: ir.Model, name: str, optimization: Optimization | None = None) -> None:
        super().__init__(model, name, optimization)
        self._values = {value.name or "": value for value in (*model.graph.inputs, *model.graph.outputs)}
        self._kept: dict[tuple[object, ...], Bound] = {}

    def run_in_place(
        self, fed: Arrays, held: Mapping[str, Any], written: Mapping[str, np.ndarray | None], results: Sequence[str]
    ) -> dict[str, Any]:
        """One run; what it gives is valid until the next one. Raises RunError with onnxruntime's own words.

        ``fed`` is copied; ``held`` is read where it lies: arrays, or onnxruntime's own values. ``written`` says for an
        output the array that takes it, or None: then the run allocates it, and its own value is given.
        """
        bound = self._bound(fed, held, written, results)
        for name, array in fed.items():
            np.copyto(bound.fed[name], array, casting="unsafe")
        try:
            self._session.run_with_iobinding(bound.binding)
        except Exception as error:  # the binding's exceptions share no base class
            raise RunError(" ".join(str(error).split())[:400], where=self.name) from error
        found: dict[str, Any] = {name: array for name, array in written.items() if array is not None} | bound.given
        if len(found) < len(bound.order):
            values = bound.binding.get_outputs()
            found |= {name: values[bound.order[name]] for name in written if name not in found}
            found |= {name: values[bound.order[name]].numpy() for name in results if name not in found}
        return found

    def forget(self) -> None:
        """Drops the bindings: the memory that they point to is gone."""
        self._kept.clear()

    def close(self) -> None:
        """Lets the session and its bindings go."""
        self.forget()
        self._session = None

    def _bound(
        self, fed: Arrays, held: Mapping[str, Any], written: Mapping[str, np.ndarray | None], results: Sequence[str]
    ) -> Bound:
        """A binding of these sizes and places: made once where all of them stay, else anew."""
        if not all(isinstance(array, np.ndarray) for array in (*held.values(), *written.values())):
            return self._bind(fed, held, written, results)
        # a binding that is kept holds its arrays: no other one can have their ids
        key = (*((n, a.shape) for n, a in fed.items()), *map(id, held.values()), *map(id, written.values()))
        if key not in self._kept:
            self._kept[key] = self._bind(fed, held, written, results)
        return self._kept[key]

    def _bind(
        self, fed: Arrays, held: Mapping[str, Any], written: Mapping[str, np.ndarray | None], results: Sequence[str]
    ) -> Bound:
        binding = self._session.io_binding()
        copies = {name: np.empty(array.shape, self._dtype(name).numpy()) for name, array in fed.items()}
        for name, value in (copies | dict(held)).items():
            if isinstance(value, np.ndarray):
                kind = int(self._dtype(name))
                binding.bind_input(name, "cpu", 0, kind, value.shape, value.ctypes.data)
            else:
                binding.bind_ortvalue_input(name, value)
        given = {name: array for name in results if (array := self._room_for(name)) is not None}
        places = {**written, **{name: given.get(name) for name in results}}
        for name, array in places.items():
            if array is not None:
                binding.bind_output(name, "cpu", 0, int(self._dtype(name)), array.shape, array.ctypes.data)
            else:
                binding.bind_output(name, "cpu")
        order = {name: at for at, name in enumerate(places)}
        return Bound(binding, copies, given, order, (*held.values(), *places.values()))

    def _dtype(self, name: str) -> ir.DataType:
        dtype = self._values[name].dtype
        assert dtype is not None, "a graph that runs has types"
        return dtype

    def _room_for(self, name: str) -> np.ndarray | None:
        """An array for an output of known size."""
        dims = dims_of(self._values[name])
        sizes = [dim for dim in dims or () if isinstance(dim, int)]
        known = dims is not None and len(sizes) == len(dims) and self._values[name].dtype is not None
        return np.empty(sizes, self._dtype(name).numpy()) if known else None
