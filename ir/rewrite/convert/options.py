"""These options may be asked of a conversion."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class To(enum.Enum):
    """The layout that the carried states shall have."""

    APPEND = "append"
    SCATTER = "scatter"
    DELTA = "delta"
    NONE = "none"


class Ops(enum.Enum):
    """The operators that write rows into a cache."""

    ONNX = "ai.onnx"  # ScatterND
    TENSOR_SCATTER = "tensorscatter"  # opset 24; the rows of a run are consecutive
    CTX = "ctx"  # local functions CtxScatter and CtxGather


class MaskInput(enum.Enum):
    """What becomes of a two-dimensional attention mask once rows are written in place."""

    ROWS = "rows"  # it stays, one column a cache row
    POSITIONS = "positions"  # it goes: positions alone tell what a query sees


class Names(enum.Enum):
    """How states are called afterwards."""

    KEEP = "keep"
    RETAINED = "retained"  # past_key.0 -> past_key.0_RetainedState


@dataclass(frozen=True)
class Options:
    """One conversion; ``owner`` is the pass's name, ``ctx`` the symbol of a cache's rows, or their number."""

    owner: str
    ops: Ops = Ops.ONNX
    mask: MaskInput = MaskInput.ROWS
    names: Names = Names.KEEP
    ctx: str = "ctx_len"
    transpose_keys: bool = False
