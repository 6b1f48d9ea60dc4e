"""A cache's memory between runs: what each run reads, what it writes, and how rejected rows are taken back."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np

from .caches import CacheBinding, CachePolicy


class KVCache:
    """One state between runs: ``past`` before a run, ``done`` after it, then ``keep`` takes rejected rows back.

    A run that fails is not ``done`` and leaves the cache as it was. Arrays and onnxruntime's own values serve alike.
    This class is a constant: read, never written, and where the graph passes it through, that output is left alone.
    """

    fixed = True  # whether it lies at one place, so that a session's binding serves every run

    def __init__(self, binding: CacheBinding) -> None:
        self.value: Any = binding.empty()

    def past(self, binding: CacheBinding) -> Any:
        """What a run of the graph reads."""
        return self.value

    def target(self) -> np.ndarray | None:
        """Where a run writes; None where the run allocates what it gives."""
        return None

    def done(self, output: Any, width: int, binding: CacheBinding) -> None:
        """The run of ``width`` tokens succeeded; ``output`` is what it wrote."""

    def keep(self, before: np.ndarray, counts: np.ndarray, width: int) -> None:
        """Of the last run's ``width`` tokens each row's first ``counts`` stay, behind the ``before`` that it held."""

    def array(self) -> np.ndarray:
        """The rows as they are now; a copy where the last run's own memory holds them."""
        if not isinstance(self.value, np.ndarray):
            self.value = as_array(self.value)
        return self.value

    def copy(self) -> Self:
        """The same contents, to go on from apart."""
        return copy.copy(self)


class BufferCache(KVCache):
    """One buffer that is read and written, or two that trade places; or one that the host writes the new rows into.

    Rows behind a text's end are rewritten before anything attends to them, so nothing is taken back.
    """

    def __init__(self, binding: CacheBinding) -> None:
        super().__init__(binding)
        self.axes = (binding.batch_axis, binding.axis or 0)
        self.other = binding.empty() if binding.policy is CachePolicy.SWAPPED else self.value
        self.fixed = binding.policy is not CachePolicy.PLACED
        self._new: np.ndarray | None = None

    def target(self) -> np.ndarray | None:
        """The same buffer, or the other one."""
        return self.other if self.fixed else None

    def done(self, output: Any, width: int, binding: CacheBinding) -> None:
        """What was written is read next."""
        if self.fixed:
            self.value, self.other = output, self.value
        else:
            self._new = as_array(output)

    def keep(self, before: np.ndarray, counts: np.ndarray, width: int) -> None:
        """Writes each row's new rows at their places, where they left the graph alone."""
        if self._new is None:
            return
        held, new = (np.moveaxis(array, self.axes, (0, 1)) for array in (self.value, self._new))
        for row, (start, count) in enumerate(zip(before, counts, strict=True)):
            held[row, start : start + count] = new[row, :count]
        self._new = None

    def copy(self) -> Self:
        """The buffer copied, for the host writes into it."""
        return copy.deepcopy(self)


class GrowingCache(KVCache):
    """What a run gives is what the next one takes: handed on without a copy unless rows are taken back.

    A graph with a past of fixed length is given the rows behind zeros; one that gives new rows alone has them joined.
    """

    fixed = False

    def __init__(self, binding: CacheBinding) -> None:
        super().__init__(binding)
        self.axis, self.rewinds, self.batch_axis = binding.axis, binding.rewinds, binding.batch_axis
        if binding.policy is CachePolicy.PADDED:
            self.value = self.value[(*(slice(None),) * (self.axis or 0), slice(0))]

    def past(self, binding: CacheBinding) -> Any:
        """What the last run gave, behind zeros where the graph wants more rows."""
        if binding.policy is not CachePolicy.PADDED:
            return self.value
        axis, rows, filled = self.axis or 0, self.array(), binding.empty()
        room = filled.shape[axis]
        filled[(*(slice(None),) * axis, slice(room - rows.shape[axis], room))] = rows
        return filled

    def done(self, output: Any, width: int, binding: CacheBinding) -> None:
        """Takes the run's own memory over, or puts the run's rows, the last of what it gave, behind those held."""
        if self.axis is None or not (binding.delta or binding.policy is CachePolicy.PADDED):
            self.value = output
            return
        given = as_array(output)
        rows = given.shape[self.axis]
        new = given[(*(slice(None),) * self.axis, slice(rows - width, rows))]
        self.value = np.concatenate([self.array(), new], axis=self.axis)

    def keep(self, before: np.ndarray, counts: np.ndarray, width: int) -> None:
        """Every text ends where the cache ends: shorter ones begin later, so that no gap is inside one."""
        if self.axis is None or not self.rewinds:
            return
        shape = self.value.shape
        length, after = (shape if isinstance(self.value, np.ndarray) else shape())[self.axis], before + counts
        if length != after.max() or (after != after.max()).any():
            self.value = _aligned(self.array(), (self.batch_axis, self.axis), before, counts, length - width)


def as_array(value: Any) -> np.ndarray:
    """An array of its own, of onnxruntime's value or of an array."""
    return value if isinstance(value, np.ndarray) else np.array(value.numpy())


def open_cache(binding: CacheBinding) -> KVCache:
    """The memory of a state, empty."""
    if binding.policy is CachePolicy.CONSTANT:
        return KVCache(binding)
    return BufferCache(binding) if binding.in_place else GrowingCache(binding)


def _aligned(array: np.ndarray, axes: tuple[int, int], before: np.ndarray, counts: np.ndarray, held: int) -> np.ndarray:
    """The cache as long as its longest text, every text at its end.

    Before the run all texts ended at row ``held``; each row's new tokens stand right behind that.
    """
    after = before + counts
    longest = int(after.max())
    old = np.moveaxis(array, axes, (0, 1))
    if (after == longest).all() and (before == held).all():
        return np.ascontiguousarray(np.moveaxis(old[:, :longest], (0, 1), axes))
    new = np.zeros((old.shape[0], longest, *old.shape[2:]), array.dtype)
    for row, (length, end) in enumerate(zip(after.tolist(), (held + counts).tolist(), strict=True)):
        new[row, longest - length :] = old[row, end - length : end]
    return np.ascontiguousarray(np.moveaxis(new, (0, 1), axes))
