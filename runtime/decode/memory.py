"""The memory of a session's states: what each run reads, what it writes, and how rejected rows are taken back."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from .holdings import Hold, Holding


class Kept(Protocol):
    """One state between runs. ``bind`` before a run, then ``done`` if it succeeded; ``keep`` takes rows back."""

    fixed: bool  # whether a binding made once serves every run

    def bind(self, binding: Any, holding: Holding, width: int) -> None:
        """Tells a run of ``width`` tokens where to read and write."""
        ...

    def done(self, output: Any) -> None:
        """The run succeeded; ``output`` is what it allocated, where it did."""
        ...

    def keep(self, before: np.ndarray, counts: np.ndarray, width: int) -> None:
        """Of the last run's ``width`` tokens each row's first ``counts`` stay, behind the ``before`` that it held."""
        ...

    def array(self) -> np.ndarray:
        """The rows as they are now."""
        ...


def bind_input(binding: Any, name: str, array: np.ndarray, kind: int) -> None:
    """Lets a run read ``array`` where it lies."""
    binding.bind_input(name, "cpu", 0, kind, array.shape, array.ctypes.data)


def bind_output(binding: Any, name: str, array: np.ndarray, kind: int) -> None:
    """Lets a run write into ``array``."""
    binding.bind_output(name, "cpu", 0, kind, array.shape, array.ctypes.data)


class Buffers:
    """One buffer that is read and written, or two that trade places after a run.

    Rows behind a text's end are rewritten before anything attends to them, so nothing is taken back, and a run that
    failed leaves nothing to restore.
    """

    fixed = True

    def __init__(self, holding: Holding) -> None:
        self.read = holding.empty()
        self.write = self.read if holding.hold is Hold.SHARED else holding.empty()

    def bind(self, binding: Any, holding: Holding, width: int) -> None:
        """Binds both buffers."""
        bind_input(binding, holding.input, self.read, int(holding.dtype))
        if holding.output is not None:
            bind_output(binding, holding.output, self.write, int(holding.dtype))

    def done(self, output: Any) -> None:
        """What was written is read next."""
        self.read, self.write = self.write, self.read

    def keep(self, before: np.ndarray, counts: np.ndarray, width: int) -> None:
        """Nothing to do."""

    def array(self) -> np.ndarray:
        """What the next run reads."""
        return self.read


class Constant:
    """Read and never written; where the graph passes it through, that output is left alone."""

    fixed = True

    def __init__(self, holding: Holding) -> None:
        self.values = holding.empty()

    def bind(self, binding: Any, holding: Holding, width: int) -> None:
        """Binds the input alone."""
        bind_input(binding, holding.input, self.values, int(holding.dtype))

    def done(self, output: Any) -> None:
        """Stays."""

    def keep(self, before: np.ndarray, counts: np.ndarray, width: int) -> None:
        """Nothing to do."""

    def array(self) -> np.ndarray:
        """The constant."""
        return self.values


class Grown:
    """What a run gives is what the next one takes: handed on without a copy unless rows are taken back."""

    fixed = False

    def __init__(self, holding: Holding) -> None:
        self.axis, self.layout = holding.axis, holding.layout
        self.rewinds = holding.rewinds
        self.batch_axis = holding.batch_axis
        self._held: np.ndarray | None = holding.empty()
        self._value: Any = None

    def array(self) -> np.ndarray:
        """The rows as an array; a copy where the last run's own memory holds them."""
        if self._held is None:
            self._held, self._value = np.array(self._value.numpy()), None
        return self._held

    def replace(self, array: np.ndarray) -> None:
        """Other rows in their place."""
        self._held, self._value = np.ascontiguousarray(array), None

    def bind(self, binding: Any, holding: Holding, width: int) -> None:
        """Binds what the last run gave; the run allocates what it gives."""
        if self._value is not None:
            binding.bind_ortvalue_input(holding.input, self._value)
        else:
            assert self._held is not None, "one of the two holds the rows"
            bind_input(binding, holding.input, self._held, int(holding.dtype))
        assert holding.output is not None, "what grows leaves the graph"
        binding.bind_output(holding.output, "cpu")

    def done(self, output: Any) -> None:
        """Takes the run's own memory over."""
        self._held, self._value = None, output

    def keep(self, before: np.ndarray, counts: np.ndarray, width: int) -> None:
        """Every text ends where the cache ends: shorter ones begin later, so that no gap is inside one."""
        if self.axis is None or not self.rewinds:
            return
        length = self._value.shape()[self.axis] if self._value is not None else self.array().shape[self.axis]
        longest = int((before + counts).max())
        if length == longest and (before + counts == longest).all():
            return
        self.replace(_aligned(self.array(), (self.batch_axis, self.axis), before, counts, length - width))


class Padded(Grown):
    """A past of fixed length: kept by the host as long as it really is, and right-aligned for each run."""

    def __init__(self, holding: Holding) -> None:
        super().__init__(holding)
        assert self.axis is not None, "a padded past has an axis that grows"
        self.replace(self.array()[_cut(self.axis, 0)])
        self._fed = holding.empty()

    def bind(self, binding: Any, holding: Holding, width: int) -> None:
        """Builds the past behind zeros; other graphs of the program may take more or fewer rows of it."""
        rows, held = self.array(), self.array().shape[self.axis or 0]
        self._fed = holding.empty()
        room = self._fed.shape[self.axis or 0]
        self._fed[(slice(None),) * (self.axis or 0) + (slice(room - held, room),)] = rows
        bind_input(binding, holding.input, self._fed, int(holding.dtype))
        assert holding.output is not None, "what grows leaves the graph"
        binding.bind_output(holding.output, "cpu")
        self._width = width

    def done(self, output: Any) -> None:
        """Puts the new rows, the last ones of the present, behind those held."""
        axis = self.axis or 0
        new = np.take(output.numpy(), range(-self._width, 0), axis=axis)
        self.replace(np.concatenate([self.array(), new], axis=axis))


class Rows(Grown):
    """Only new rows leave the graph: they are put behind those held, or, in a cache of fixed length, at positions."""

    def __init__(self, holding: Holding) -> None:
        super().__init__(holding)
        self.placed = holding.axis is not None and holding.sizes[holding.axis] is not None
        self._new = self.array()

    def done(self, output: Any) -> None:
        """Takes the new rows."""
        self._new = np.array(output.numpy())
        if not self.placed:
            self.replace(np.concatenate([self.array(), self._new], axis=self.axis or 0))

    def keep(self, before: np.ndarray, counts: np.ndarray, width: int) -> None:
        """Writes each row's tokens at their places."""
        if not self.placed:
            super().keep(before, counts, width)
            return
        held, new = (np.moveaxis(array, self.axis or 0, 1) for array in (self.array(), self._new))
        for row, (start, count) in enumerate(zip(before, counts, strict=True)):
            held[row, start : start + count] = new[row, :count]


_KEPT: dict[Hold, type[Buffers | Constant | Grown]] = {
    Hold.SHARED: Buffers,
    Hold.SWAPPED: Buffers,
    Hold.GROWN: Grown,
    Hold.PADDED: Padded,
    Hold.ROWS: Rows,
    Hold.CONSTANT: Constant,
}


def keeper(holding: Holding) -> Kept:
    """The memory of a state."""
    return _KEPT[holding.hold](holding)


def _cut(axis: int, length: int) -> tuple[slice, ...]:
    return (slice(None),) * axis + (slice(0, int(length)),)


def _aligned(array: np.ndarray, axes: tuple[int, int], before: np.ndarray, counts: np.ndarray, held: int) -> np.ndarray:
    """The cache as long as its longest text, every text at its end.

    Before the run all texts ended at row ``held``; each row's new tokens stand right behind that.
    """
    after = before + counts
    longest = int(after.max())
    old = np.moveaxis(array, axes, (0, 1))
    if (after == longest).all() and (before == held).all():
        return np.moveaxis(old[:, :longest], (0, 1), axes)
    new = np.zeros((old.shape[0], longest, *old.shape[2:]), array.dtype)
    for row, (length, end) in enumerate(zip(after.tolist(), (held + counts).tolist(), strict=True)):
        new[row, longest - length :] = old[row, end - length : end]
    return np.moveaxis(new, (0, 1), axes)
