"""An encoding is a grid of integers over a tensor's numbers; a table holds them by tensor name."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import InputError, PassRefused
from .histogram import Histogram


class EncodingsInvalid(InputError):
    """An encodings file or an encoding that is not what it should be; says the line or the tensor."""


class NoEvidence(PassRefused):
    """A tensor without numbers to quantize it by: never seen, infinite, NaN, or of one value only."""


class Kind(enum.Enum):
    """What is encoded: a tensor that a run computes, or a weight."""

    ACTIVATION = "activation"
    PARAM = "param"


class Number(enum.Enum):
    """What the encoded numbers are."""

    INT = "int"
    FLOAT = "float"


Floats = tuple[float, ...]
Ints = tuple[int, ...]


@dataclass(frozen=True)
class Encoding:
    """One grid, ``real = (q - zero_point) * scale``, with ``q`` of ``bits`` bits, signed or not.

    Attributes:
        scale: One number a tensor, a channel, or a block, in the order of ``shape``; empty where ``number`` is float.
        zero_point: As many integers, on the grid of ``signed``.
        bits: The width of ``q``.
        signed: Whether ``q`` counts from ``-2**(bits-1)`` or from 0.
        symmetric: Whether the grid is meant to be the same on both sides of 0.
        shape: ``()`` a tensor, ``(C,)`` a channel, more axes where blocks are scaled.
        axis: The channel axis, or the axis cut into blocks; None a tensor, and where a file does not tell.
        block: The length of a block along ``axis``.
        kind: Activation or weight; None where the file does not tell.
        number: Integers, or floats of ``bits`` bits (then there is no grid).
        low: The smallest numbers as the file states them, where it does.
        high: The largest numbers as the file states them.
        levels: Integer scales of blocks, multiplied by the float ``scale`` of their channel; flat.
        levels_shape: Their shape.
        wide_bits: The width that the blocks of ``levels`` decompress to, where it is known.
    """

    scale: Floats
    zero_point: Ints
    bits: int
    signed: bool = False
    symmetric: bool = False
    shape: Ints = ()
    axis: int | None = None
    block: int | None = None
    kind: Kind | None = None
    number: Number = Number.INT
    low: Floats | None = None
    high: Floats | None = None
    levels: Ints = ()
    levels_shape: Ints = ()
    wide_bits: int | None = None

    @property
    def smallest(self) -> int:
        """The first integer of the grid."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def largest(self) -> int:
        """The last integer of the grid."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def middle(self) -> int:
        """The zero point that a symmetric grid has."""
        return 0 if self.signed else 1 << (self.bits - 1)

    @property
    def turned(self) -> bool:
        """True for a weight's grid that runs the other way: onnxruntime's quantizers put the larger end to -8."""
        return min(self.scale, default=1.0) < 0

    @property
    def per_tensor(self) -> bool:
        """True for one grid over the whole tensor."""
        return not self.shape and not self.levels

    def span(self) -> tuple[Floats, Floats]:
        """The smallest and the largest real number of each grid."""
        pairs = list(zip(self.scale, self.zero_point, strict=True))
        return (
            tuple((self.smallest - zero) * scale for scale, zero in pairs),
            tuple((self.largest - zero) * scale for scale, zero in pairs),
        )


@dataclass(frozen=True)
class Evidence:
    """The numbers that a tensor held while it was watched; an empty tensor leaves ``(inf, -inf)``.

    ``more`` keeps what a file says beside (averages), as it stands there. With a ``histogram``, ``method`` says how the
    range of a grid is chosen from it once the grid's bits are known: ``mse``, ``entropy``, ``percentile 99.9``.
    """

    low: float
    high: float
    dtype: str = "float32"
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    method: str = ""
    histogram: Histogram | None = None

    @property
    def usable(self) -> bool:
        """True for two finite numbers that differ."""
        return math.isfinite(self.low) and math.isfinite(self.high) and self.high > self.low


@dataclass(frozen=True)
class TensorEncoding:
    """What is known of one tensor: the grid it is put on, the numbers it was seen to hold, or both."""

    encoding: Encoding | None = None
    range: Evidence | None = None


@dataclass(frozen=True)
class Calibration:
    """How the ranges of a table were found.

    Attributes:
        graph: The graph that ran.
        method: How a range is chosen from the numbers seen.
        bits: The width that ``mse`` chose for; None for the other methods.
        chunk: Tokens a run.
        samples: Texts read.
        tokens: Tokens of them that were fed.
        left_out: Tokens that filled no run, or found no room in the cache.
        longest: Tokens fed of the longest text.
        answers: Tokens that the graph answered.
        k_envelope: How ranges of rotated keys were widened.
        clamped: Tensors whose mask fills were clamped.
    """

    graph: str = ""
    method: str = ""
    bits: int | None = None
    chunk: int = 0
    samples: int = 0
    tokens: int = 0
    left_out: int = 0
    longest: int | None = None
    answers: int = 0
    k_envelope: str = ""
    clamped: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The facts by name; one that is None is left out."""
        facts: dict[str, Any] = {**vars(self), "clamped": list(self.clamped)}
        return {name: value for name, value in facts.items() if value is not None}


@dataclass
class EncodingTable:
    """Encodings and watched ranges by tensor name, in the file's order.

    Attributes:
        encodings: Name -> grid.
        ranges: Name -> the numbers seen.
        extra: What else the file says, by its own keys.
        calibration: How the ranges were found, where it is known.
        file_format: The format of the file that the table was read from; empty for a table made here.
    """

    encodings: dict[str, Encoding] = field(default_factory=dict[str, Encoding])
    ranges: dict[str, Evidence] = field(default_factory=dict[str, Evidence])
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    calibration: Calibration | None = None
    file_format: str = ""

    @classmethod
    def of(cls, tensors: Mapping[str, TensorEncoding]) -> EncodingTable:
        """The table of what is known of each tensor."""
        grids = {name: known.encoding for name, known in tensors.items() if known.encoding is not None}
        return cls(grids, {name: known.range for name, known in tensors.items() if known.range is not None})

    def names(self) -> list[str]:
        """Every tensor that the table knows, in order."""
        return list({**dict.fromkeys(self.encodings), **dict.fromkeys(self.ranges)})

    def tensors(self) -> dict[str, TensorEncoding]:
        """What is known of each tensor, by name."""
        return {name: TensorEncoding(self.encodings.get(name), self.ranges.get(name)) for name in self.names()}

    def own_extra(self, *formats: str) -> dict[str, Any]:
        """``extra`` where the table was read from one of these formats, whose keys it then has; else nothing."""
        return self.extra if self.file_format in formats else {}


MAX_BITS = 32
_MASKED = (
    "A tensor that holds -inf, such as a mask, was calibrated as it is: calibrate with `onnx-passes calibrate`, "
    "which clamps mask fills, or leave the tensor in float."
)


def check_encoding(name: str, encoding: Encoding, *, where: str = "", turned: bool = False) -> Encoding:
    """``encoding`` itself; EncodingsInvalid, naming the tensor, where it is no grid.

    ``turned`` allows a weight's scale below 0: onnxruntime's quantizers put the end of larger magnitude to -8.
    """
    for wrong, found, wanted in _faults(encoding, turned and encoding.kind is Kind.PARAM):
        if wrong:
            hint = _MASKED if found == "scale inf" else ""
            what = f"tensor {name!r} has no valid encoding"
            raise EncodingsInvalid(what, where=where, found=found, wanted=wanted, hint=hint)
    return encoding


def _faults(e: Encoding, turned: bool) -> Iterable[tuple[bool, str, str]]:
    yield not 1 <= e.bits <= MAX_BITS, f"{e.bits} bits", f"1 to {MAX_BITS}"
    if e.number is Number.FLOAT:
        yield bool(e.scale), "a scale", "none for a float"
        return
    count = math.prod(e.shape)
    yield len(e.scale) != count, f"{len(e.scale)} scales", f"{count}"
    yield len(e.zero_point) != count, f"{len(e.zero_point)} zero points", f"{count}"
    bad = next((s for s in e.scale if not (math.isfinite(s) and (s > 0 or (turned and s < 0)))), None)
    yield bad is not None, f"scale {bad}", "a finite number other than 0" if turned else "a finite number above 0"
    levels = math.prod(e.levels_shape) if e.levels or e.levels_shape else 0
    yield len(e.levels) != levels, f"{len(e.levels)} block scales", f"{levels}"
    yield any(level < 1 for level in e.levels), "a block scale below 1", "whole numbers from 1"
    yield e.block is not None and e.block < 1, f"block size {e.block}", "at least 1"
