"""A histogram keeps how often a watched tensor held the numbers of each of many equally wide bins."""

from __future__ import annotations

import base64
import binascii
import zlib
from dataclasses import dataclass

import numpy as np

MAX_BINS = 1 << 16


@dataclass(frozen=True)
class Histogram:
    """Counts between ``first`` and ``last``, packed: int64, little-endian, deflated.

    ``bins`` is how many there are.
    """

    first: float
    last: float
    bins: int
    packed: bytes

    @classmethod
    def of(cls, counts: np.ndarray, first: float, last: float) -> Histogram:
        """The histogram of ``counts``, ``int64[bins]``."""
        flat = np.ascontiguousarray(counts.reshape(-1).astype("<i8"))
        return cls(first, last, flat.size, zlib.compress(flat.tobytes(), 9))

    def counts(self) -> np.ndarray:
        """``int64[bins]``; ValueError where the bytes do not hold so many."""
        if not 0 < self.bins <= MAX_BINS:
            raise ValueError(f"{self.bins} bins")
        unpacker = zlib.decompressobj()
        try:
            raw = unpacker.decompress(self.packed, 8 * self.bins + 1)  # and no more, whatever the bytes claim
        except zlib.error as error:
            raise ValueError(str(error)) from None
        counts = np.frombuffer(raw, "<i8") if len(raw) % 8 == 0 else np.zeros(0, np.int64)
        if counts.size != self.bins or counts.min(initial=0) < 0:
            raise ValueError(f"{len(raw)} bytes for {self.bins} bins")
        return counts.astype(np.int64)

    def text(self) -> str:
        """The packed counts as text."""
        return base64.b64encode(self.packed).decode("ascii")


def unpacked(first: float, last: float, bins: int, text: str) -> Histogram:
    """The histogram whose packed counts ``text`` holds; ValueError where it holds none."""
    try:
        packed = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    found = Histogram(first, last, bins, packed)
    found.counts()
    if not last >= first:
        raise ValueError(f"edges {first:g} and {last:g}")
    return found
