"""Ranges become grids and grids ranges: scales and zero points are made of what a tensor held."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ..core.encoding import Encoding, EncodingsInvalid, Evidence, Kind, NoEvidence
from .clip import resolve


class Symmetry(enum.Enum):
    """Whether a grid is the same on both sides of 0."""

    SYMMETRIC = "symmetric"
    ASYMMETRIC = "asymmetric"


def encoding_of(
    name: str, seen: Evidence, bits: int, symmetry: Symmetry = Symmetry.ASYMMETRIC, method: str = ""
) -> Encoding:
    """The grid of ``bits`` bits that holds 0 and all that was seen; NoEvidence, naming the tensor, where nothing was.

    Asymmetric grids are unsigned, symmetric ones signed with zero point 0. Where the evidence has a histogram, the
    range is what ``method`` (its own, where empty) chooses for these bits.
    """
    if not seen.usable:
        raise no_evidence(name, seen)
    seen = resolve(seen, bits, symmetric=symmetry is Symmetry.SYMMETRIC, method=method)
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if symmetry is Symmetry.SYMMETRIC:
        return _symmetric(max(-low, high), bits)
    scale = (high - low) / ((1 << bits) - 1)
    if scale == 0.0:
        raise no_evidence(name, seen)
    zero = min(max(round(-low / scale), 0), (1 << bits) - 1)
    return Encoding((scale,), (zero,), bits, kind=Kind.ACTIVATION)


def no_evidence(name: str, seen: Evidence | None) -> NoEvidence:
    """The error for a tensor that nothing is known of."""
    found = "no range at all" if seen is None else f"range {seen.low:g} to {seen.high:g}"
    return NoEvidence(
        f"nothing tells the range of tensor {name!r}",
        found=found,
        wanted="two finite numbers that differ",
        hint="Calibrate with tokens that reach it, tie it to a tensor that was seen (tie-states), or keep it in float.",
    )


def _symmetric(reach: float, bits: int) -> Encoding:
    # the positive half has one step less: every number seen is inside
    scale = reach / ((1 << (bits - 1)) - 1)
    return Encoding((scale,), (0,), bits, signed=True, symmetric=True, kind=Kind.ACTIVATION)


def evidence_of(encoding: Encoding) -> Evidence:
    """The range that a per-tensor grid covers, for a grid of another width."""
    if encoding.low is not None and encoding.high is not None and encoding.per_tensor:
        return Evidence(encoding.low[0], encoding.high[0])
    low, high = encoding.span()
    return Evidence(min(low), max(high))


def join(members: Iterable[Evidence]) -> Evidence:
    """All that was seen in any of them; a NaN stays one, emptiness is nothing seen."""
    low, high = float("inf"), float("-inf")
    for seen in members:
        if seen.low != seen.low or seen.high != seen.high:
            return Evidence(float("nan"), float("nan"))
        low, high = min(low, seen.low), max(high, seen.high)
    return Evidence(low, high)


def plain(encoding: Encoding) -> Encoding:
    """The same grid without ``levels``: each block's scale is its level times the scale of its channel.

    EncodingsInvalid where the two do not fit together.
    """
    if not encoding.levels:
        return encoding
    try:
        levels = np.array(encoding.levels, np.float64).reshape(encoding.levels_shape)
        scale = levels * np.array(encoding.scale, np.float64).reshape(encoding.shape)
        zero = np.broadcast_to(np.array(encoding.zero_point, np.int64).reshape(encoding.shape), levels.shape)
        if scale.shape != levels.shape:
            raise ValueError
    except ValueError:
        found = f"shapes {list(encoding.levels_shape)} and {list(encoding.shape)}"
        raise EncodingsInvalid("scales of blocks and of channels do not fit together", found=found) from None
    return replace(
        encoding,
        scale=tuple(map(float, scale.reshape(-1))),
        zero_point=tuple(map(int, zero.reshape(-1))),
        shape=encoding.levels_shape,
        levels=(),
        levels_shape=(),
        wide_bits=None,
    )


def as_signed(encoding: Encoding) -> Encoding:
    """The same grid counted from ``-2**(bits-1)``."""
    if encoding.signed:
        return encoding
    half = 1 << (encoding.bits - 1)
    return replace(encoding, signed=True, zero_point=tuple(zero - half for zero in encoding.zero_point))


def as_unsigned(encoding: Encoding) -> Encoding:
    """The same grid counted from 0."""
    if not encoding.signed:
        return encoding
    half = 1 << (encoding.bits - 1)
    return replace(encoding, signed=False, zero_point=tuple(zero + half for zero in encoding.zero_point))
