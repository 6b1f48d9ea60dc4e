"""Rows of operators that only move, repeat, select or re-encode what their first operand holds."""

from __future__ import annotations

import onnx_ir as ir

from .base import ALL, MS, Grids, Key, Operator

_INT64 = ir.DataType.INT64

VIEWS: dict[Key, Operator] = {
    # every item once or several times, in another shape
    **{
        ("", name): Operator(dtype=0, moves=True, keeps_all=True, numbers=(0,), grids=Grids.ALL)
        for name in "Expand Flatten Reshape Squeeze Tile Transpose Unsqueeze".split()
    },
    ("", "Identity"): Operator(dtype=0, elementwise=True, moves=True, keeps_all=True, numbers=(0,), grids=Grids.ALL),
    ("", "Cast"): Operator(elementwise=True, moves=True, keeps_all=True, numbers=(0,), grids=Grids.ALL),
    ("", "CastLike"): Operator(dtype=1, elementwise=True, numbers=(0,)),
    # some of the items
    **{
        ("", name): Operator(dtype=0, moves=True, numbers=(0,), grids=Grids.ALL)
        for name in ("Gather", "Slice", "Split")
    },
    # items of several operands, or of one with others around it
    ("", "Concat"): Operator(dtype=0, numbers=ALL, grids=Grids.ALL),
    ("", "Pad"): Operator(dtype=0, numbers=(0,), grids=Grids.ALL),
    ("", "Trilu"): Operator(dtype=0, truth=(0,), grids=Grids.ALL),
    ("", "Where"): Operator(dtype=1, elementwise=True, numbers=(1, 2), truth=ALL, grids=Grids.ALL),
    # numbers put on a grid and taken off it: the zero point has the integers' type, the scale the floats'
    ("", "QuantizeLinear"): Operator(dtype=2, numbers=(0,)),
    ("", "DequantizeLinear"): Operator(dtype=1, numbers=(0,)),
    (MS, "QuantizeLinear"): Operator(dtype=2, numbers=(0,)),
    (MS, "DequantizeLinear"): Operator(dtype=1, numbers=(0,)),
    # sizes, and what is made from nothing but them
    ("", "Shape"): Operator(dtype=_INT64),
    ("", "Size"): Operator(dtype=_INT64),
    ("", "ConstantOfShape"): Operator(grids=Grids.OUTPUTS),
    ("", "Range"): Operator(dtype=0, truth=(0,), grids=Grids.OUTPUTS),
    ("", "OneHot"): Operator(dtype=2, grids=Grids.OUTPUTS),
    (MS, "GatherBlockQuantized"): Operator(dtype=2, grids=Grids.OUTPUTS),  # the scales' type; data are 4 or 8 bits
    ("", "If"): Operator(tells={0: "branch"}),
}
