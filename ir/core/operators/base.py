"""A row of the table of operators: what each column says, and what stands where nothing is known."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import onnx_ir as ir

Key = tuple[str, str]
MS = "com.microsoft"  # onnxruntime's own operators (onnxruntime docs/ContribOperators.md, 1.32)
ALL = (-1,)
"""Every operand, however many there are."""


class Port(NamedTuple):
    """One carried tensor of an operator.

    Attributes:
        past: The input's index.
        present: The output's index.
        optional: True where leaving the input out means the initial value; where not, the operator needs its cache.
    """

    past: int
    present: int
    optional: bool


class Addressing(enum.Enum):
    """How an operator says which rows of its first operand it writes or reads."""

    ND = "index tuples"  # ScatterND, GatherND: the last axis of the indices has one column for each leading axis
    ELEMENTS = "one index an element"  # ScatterElements, GatherElements
    WINDOW = "first row"  # TensorScatter: consecutive rows from write_indices on


class Grids(enum.Enum):
    """Which of an operator's float tensors lie on a grid in a quantized graph."""

    ALL = "all"  # what it reads and what it gives
    OUTPUTS = "outputs"  # it reads floats as they are
    STATES = "states"  # its insides stay floats; only the carried tensors and its answer are tied


@dataclass(frozen=True, kw_only=True)
class Operator:
    """What is known of one operator; operands and results are given by their index.

    Attributes:
        dtype: The first result's element type, or the operand that has it; None where an attribute says it.
        elementwise: Each item of the result depends on the items of the operands that stand at its place alone.
        moves: The result holds nothing but items of the first operand.
        keeps_all: And every one of them, so that their range is the result's.
        numbers: The operands whose numbers stay recognizable in the result (positions shifted, ids reshaped).
        truth: The further operands whose truth or count does, on the way to a mask.
        tells: What an operand is for, by what the operator does with it (``angle``, ``extreme``, …).
        norm: It normalizes rows: what enters it is hidden states.
        writes: How it says which rows of the first operand it writes.
        reads: How it says which rows of the first operand it reads.
        slots: The operand that says which rows.
        carries: Its past and present operands.
        key_value: The operands with a run's new keys and values.
        masks: The operands that hide keys: a mask of them, or what is added to the scores.
        lengths: The operands that count the keys that are there.
        rotates: The operand with the positions that turn into angles.
        row_axis: The axis on which its carried tensors grow.
        fixed_size: They do not grow, and start as zeros, where others start with no rows.
        paged: They are a pool of blocks for all texts: no axis of them grows with one.
        appends: The present is the past with the new rows behind it.
        ends_at: The operand that says, one number a sequence, which row of the cache is a run's last.
        needs_cache: It decodes one token against a cache; without one it computes nothing useful.
        shares_buffer: It writes the new rows into the past it was given.
        cache_attributes: Attributes that speak of the cache and go with it.
        grids: Which of its float tensors lie on a grid in a quantized graph.
    """

    dtype: int | ir.DataType | None = None
    elementwise: bool = False
    moves: bool = False
    keeps_all: bool = False
    numbers: tuple[int, ...] = ()
    truth: tuple[int, ...] = ()
    tells: Mapping[int, str] = field(default_factory=dict[int, str])
    norm: bool = False
    writes: Addressing | None = None
    reads: Addressing | None = None
    slots: int | None = None
    carries: tuple[Port, ...] = ()
    key_value: tuple[int, int] | None = None
    masks: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    rotates: int | None = None
    row_axis: int = 2
    fixed_size: bool = False
    paged: bool = False
    appends: bool = False
    ends_at: int | None = None
    needs_cache: bool = False
    shares_buffer: bool = False
    cache_attributes: tuple[str, ...] = ()
    grids: Grids | None = None

    def uses(self) -> dict[int, str]:
        """What each operand is for, as far as the row tells: ``tells`` and the columns that name an operand's use."""
        found = dict(self.tells)
        found.update(dict.fromkeys((*self.masks, *self.lengths), "mask"))
        if self.rotates is not None:
            found[self.rotates] = "angle"
        if self.writes is not None and self.slots is not None:
            found[self.slots] = "slot"
        return found
