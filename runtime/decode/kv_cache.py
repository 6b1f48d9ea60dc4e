"""A cache's memory between runs, and the one count of the tokens that each text has in it.

A run reads ``past``, writes into ``target`` and is ``done``; ``keep`` then says how many of its tokens stay. A run that
fails is not done and leaves everything as it was. Arrays and onnxruntime's own values serve alike.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from ...ir.core.errors import UsageError
from .caches import CacheBinding, CachePolicy

BUFFERS = (CachePolicy.SHARED, CachePolicy.SWAPPED)


class KVCache:
    """One state between runs. This class is a constant: read, never written, whatever the graph passes through."""

    def __init__(self, binding: CacheBinding) -> None:
        self.value: Any = binding.empty()
        self.opened_as = binding

    def past(self, binding: CacheBinding) -> Any:
        """What a run of the graph reads."""
        return self.value

    def target(self) -> np.ndarray | None:
        """Where a run writes; None where the run allocates what it gives."""
        return None

    def done(self, output: Any, width: int, binding: CacheBinding) -> None:
        """The run of ``width`` tokens succeeded; ``output`` is what it wrote."""

    def keep(self, before: np.ndarray, counts: np.ndarray, behind: int | np.ndarray) -> None:
        """Behind the ``before`` tokens of each text ``counts`` stay of the last ``behind`` rows, the first of them."""

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
        self.placed = binding.policy is CachePolicy.PLACED
        self._new: np.ndarray | None = None

    def target(self) -> np.ndarray | None:
        """The same buffer, or the other one."""
        return None if self.placed else self.other

    def done(self, output: Any, width: int, binding: CacheBinding) -> None:
        """What was written is read next."""
        if self.placed:
            self._new = as_array(output)
        else:
            self.value, self.other = output, self.value

    def keep(self, before: np.ndarray, counts: np.ndarray, behind: int | np.ndarray) -> None:
        """Writes each row's new rows at their places, where they left the graph alone."""
        if self._new is None:
            return
        held, new = (np.moveaxis(array, self.axes, (0, 1)) for array in (self.value, self._new))
        for row, (start, count) in enumerate(zip(before, counts, strict=True)):
            held[row, start : start + count] = new[row, :count]
        self._new = None

    def copy(self) -> Self:
        """The buffer copied, for it is written into."""
        return copy.deepcopy(self)


class GrowingCache(KVCache):
    """What a run gives is what the next one takes: handed on without a copy unless rows are taken back.

    A graph with a past of fixed length is given the rows behind zeros; one that gives new rows alone has them joined.
    """

    def __init__(self, binding: CacheBinding) -> None:
        super().__init__(binding)
        self.axis, self.rewinds, self.batch_axis = binding.axis or 0, binding.rewinds, binding.batch_axis
        self.grows = binding.axis is not None
        if binding.policy is CachePolicy.PADDED:
            self.value = self.value[(*(slice(None),) * self.axis, slice(0))]

    def past(self, binding: CacheBinding) -> Any:
        """What the last run gave, behind zeros where the graph wants more rows."""
        if binding.policy is not CachePolicy.PADDED:
            return self.value
        rows, filled = self.array(), binding.empty()
        room = filled.shape[self.axis]
        filled[(*(slice(None),) * self.axis, slice(room - rows.shape[self.axis], room))] = rows
        return filled

    def done(self, output: Any, width: int, binding: CacheBinding) -> None:
        """Takes the run's own memory over, or puts the run's rows, the last of what it gave, behind those held."""
        if self.grows and (binding.delta or binding.policy is CachePolicy.PADDED):
            given = as_array(output)
            rows = given.shape[self.axis]
            new = given[(*(slice(None),) * self.axis, slice(rows - width, rows))]
            output = np.concatenate([self.array(), new], axis=self.axis)
        self.value = output

    def keep(self, before: np.ndarray, counts: np.ndarray, behind: int | np.ndarray) -> None:
        """Every text ends where the cache ends: shorter ones begin later, so that no gap is inside one."""
        if not self.grows or not self.rewinds:
            return
        shape, after = self.value.shape, before + counts
        length, longest = (shape if isinstance(self.value, np.ndarray) else shape())[self.axis], int(after.max())
        if length == longest and (after == longest).all():
            return
        old = np.moveaxis(self.array(), (self.batch_axis, self.axis), (0, 1))
        new = np.zeros((old.shape[0], longest, *old.shape[2:]), old.dtype)
        for row, (count, end) in enumerate(zip(after, length - behind + counts, strict=True)):
            new[row, longest - count :] = old[row, end - count : end]
        self.value = np.ascontiguousarray(np.moveaxis(new, (0, 1), (self.batch_axis, self.axis)))


class Caches:
    """The caches of a batch of texts by input name, shared by the graphs of a program.

    ``lengths``, INT64 ``[texts]``, is how many tokens of each text they hold, and so the position of its next one:
    nothing else counts rows.
    """

    def __init__(self, texts: int) -> None:
        self.states: dict[str, KVCache] = {}
        self.lengths = np.zeros(texts, np.int64)
        self._width = 0

    def open(self, bindings: Mapping[str, CacheBinding], constants: Mapping[str, np.ndarray] | None = None) -> None:
        """Makes room for what is not open yet; states that are only read hold the ``constants``.

        Raises UsageError where a graph wants a buffer of another size than that which is there.
        """
        for name, binding in bindings.items():
            if name not in self.states:
                self.states[name] = open_cache(binding)
                if binding.policy is CachePolicy.CONSTANT and constants and name in constants:
                    self.states[name].value = constants[name]
            first = self.states[name].opened_as
            if first.sizes != binding.sizes and first.policy is binding.policy and first.policy in BUFFERS:
                raise UsageError(
                    "two graphs keep this state in other sizes",
                    where=f"input {name!r}",
                    found=list(binding.sizes),
                    wanted=list(first.sizes),
                    hint="Clone both with the same context and batch.",
                )

    def done(self, bindings: Iterable[CacheBinding], outputs: Mapping[str, Any], width: int) -> None:
        """A run of ``width`` tokens succeeded; ``keep`` then says which of them stay."""
        for binding in bindings:
            if (output := outputs.get(binding.written or "")) is not None:
                self.states[binding.input].done(output, width, binding)
        self._width = width

    def keep(self, counts: np.ndarray) -> None:
        """Of the last run each text's first ``counts`` tokens stay."""
        for cache in self.states.values():
            cache.keep(self.lengths, counts, self._width)
        self.lengths += counts

    def rewind(self, texts: Sequence[int] | np.ndarray, past: Sequence[int] | np.ndarray) -> None:
        """These texts hold ``past`` tokens, where they held more. Raises UsageError where they held fewer."""
        before = self.lengths.copy()
        if (before[texts] < past).any():
            wanted = f"at most {before[texts].tolist()}"
            raise UsageError("a run starts behind the end of its text", found=list(past), wanted=wanted)
        self.lengths[texts] = past
        if (behind := before - self.lengths).any():
            for cache in self.states.values():
                cache.keep(self.lengths, np.zeros_like(behind), behind)

    @property
    def held(self) -> int:
        """How many tokens the longest text has."""
        return int(self.lengths.max(initial=0))

    def copy(self) -> Caches:
        """The same contents, to go on from apart."""
        apart = Caches(len(self.lengths))
        apart.lengths[:] = self.lengths
        apart.states = {name: cache.copy() for name, cache in self.states.items()}
        return apart

    def reset(self) -> None:
        """Forgets every text."""
        self.states.clear()
        self.lengths[:] = 0


def as_array(value: Any) -> np.ndarray:
    """An array of its own, of onnxruntime's value or of an array."""
    return value if isinstance(value, np.ndarray) else np.array(value.numpy())


def open_cache(binding: CacheBinding) -> KVCache:
    """The memory of a state, empty."""
    if binding.policy is CachePolicy.CONSTANT:
        return KVCache(binding)
    return BufferCache(binding) if binding.in_place else GrowingCache(binding)
