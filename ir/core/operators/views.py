"""Operators that only move, repeat, select or re-encode what their first operand holds have their rows here."""

from __future__ import annotations

import onnx_ir as ir

from .base import ALL, MS, Addressing, Grids, Key, Lookup, Operator

_INT64 = ir.DataType.INT64

VIEWS: dict[Key, Operator] = {
    # every item once, or several times, in another shape
    **{
        ("", name): Operator(dtype=0, moves=True, keeps_all=True, reshapes=True, numbers=(0,), grids=Grids.ALL)
        for name in ("Flatten", "Reshape")
    },
    **{
        ("", name): Operator(
            dtype=0, moves=True, keeps_all=True, reshapes=True, ranks=ranks, numbers=(0,), grids=Grids.ALL
        )
        for name, ranks in (("Squeeze", -1), ("Unsqueeze", 1))
    },
    **{
        ("", name): Operator(
            dtype=0, moves=True, keeps_all=True, repeats=True, spreads=True, grows=True, numbers=(0,), grids=Grids.ALL
        )
        for name in ("Expand", "Tile")
    },
    ("", "Transpose"): Operator(dtype=0, moves=True, keeps_all=True, numbers=(0,), grids=Grids.ALL),
    ("", "Identity"): Operator(
        dtype=0, elementwise=True, moves=True, keeps_all=True, reshapes=True, numbers=(0,), grids=Grids.ALL
    ),
    ("", "Cast"): Operator(elementwise=True, moves=True, keeps_all=True, numbers=(0,), grids=Grids.ALL),
    ("", "CastLike"): Operator(dtype=1, elementwise=True, numbers=(0,)),
    # some of the items
    **{("", name): Operator(dtype=0, moves=True, numbers=(0,), grids=Grids.ALL) for name in ("Slice", "Split")},
    ("", "Gather"): Operator(
        dtype=0, moves=True, grows=True, numbers=(0,), slots=1, lookup=Lookup(1, 0), grids=Grids.ALL
    ),
    ("", "GatherElements"): Operator(
        dtype=0, moves=True, numbers=(0,), reads=Addressing.ELEMENTS, slots=1, grids=Grids.ALL
    ),
    ("", "GatherND"): Operator(dtype=0, moves=True, numbers=(0,), reads=Addressing.ND, slots=1, grids=Grids.ALL),
    # items of several operands, or of one with others around it
    ("", "Concat"): Operator(dtype=0, grows=True, numbers=ALL, grids=Grids.ALL),
    ("", "Pad"): Operator(dtype=0, spreads=True, grows=True, numbers=(0,), grids=Grids.ALL),
    ("", "Resize"): Operator(grows=True),
    ("", "Trilu"): Operator(dtype=0, truth=(0,), grids=Grids.ALL),
    ("", "Where"): Operator(dtype=1, elementwise=True, decides=0, numbers=(1, 2), truth=ALL, grids=Grids.ALL),
    # numbers put on a grid and taken off it: the zero point has the integers' type, the scale the floats'
    ("", "QuantizeLinear"): Operator(dtype=2, default=ir.DataType.UINT8, numbers=(0,), quantizes=True, rounds=True),
    (MS, "QuantizeLinear"): Operator(dtype=2, default=ir.DataType.UINT8, numbers=(0,), quantizes=True, rounds=True),
    ("", "DequantizeLinear"): Operator(dtype=1, numbers=(0,), dequantizes=True),
    (MS, "DequantizeLinear"): Operator(dtype=1, numbers=(0,), dequantizes=True),
    ("", "DynamicQuantizeLinear"): Operator(whole_scale=True, rounds=True),
    # sizes, and what is made from nothing but them
    ("", "Shape"): Operator(dtype=_INT64, sizes=True),
    ("", "Size"): Operator(dtype=_INT64, sizes=True),
    ("", "Constant"): Operator(by_value=True),
    ("", "ConstantOfShape"): Operator(
        by_value=True, default=ir.DataType.FLOAT, spreads=True, grows=True, grids=Grids.OUTPUTS
    ),
    ("", "Range"): Operator(dtype=0, truth=(0,), spreads=True, grows=True, grids=Grids.OUTPUTS),
    ("", "OneHot"): Operator(dtype=2, spreads=True, grows=True, grids=Grids.OUTPUTS),
    # rows of tables; the scales' type, where the table has 4 or 8 bits
    (MS, "GatherBlockQuantized"): Operator(dtype=2, lookup=Lookup(1, 0), grids=Grids.OUTPUTS),
    (MS, "EmbedLayerNormalization"): Operator(lookup=Lookup(0, 2)),
}
