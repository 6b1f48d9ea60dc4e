"""Tables say what each operator does to rows: multiply by a weight, keep apart, lay out anew, select."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from ...core.constants import constant_of
from ...core.operators import MS, Key, key_of, where

__all__ = ["key_of"]

HEADS: dict[Key, tuple[int, int]] = {  # operator -> its operands: the rows, and the weight
    ("", "MatMul"): (0, 1),
    ("", "Gemm"): (0, 1),
    ("", "Conv"): (0, 1),
    ("", "MatMulInteger"): (0, 1),
    ("", "QLinearMatMul"): (0, 3),
    (MS, "FusedMatMul"): (0, 1),
    (MS, "FusedGemm"): (0, 1),
    (MS, "GemmFloat8"): (0, 1),
    (MS, "MatMulBnb4"): (0, 1),
    (MS, "MatMulFpQ4"): (0, 1),
    (MS, "MatMulIntegerToFloat"): (0, 1),
    (MS, "MatMulNBits"): (0, 1),
    (MS, "QGemm"): (0, 3),
    (MS, "DynamicQuantizeMatMul"): (0, 1),
}
WHOLE_TENSOR = frozenset({(MS, "DynamicQuantizeMatMul")})
"""Products that derive one scale from all rows: with fewer rows they compute something else."""

RANK_TWO = frozenset({("", "Gemm"), (MS, "FusedGemm"), (MS, "QGemm"), (MS, "GemmFloat8"), ("", "Conv")})
"""Products that do not take rows of any rank."""

ELEMENTWISE = frozenset(where(lambda row: row.elementwise))

QUANTIZE = frozenset(
    {("", "QuantizeLinear"), ("", "DequantizeLinear"), (MS, "QuantizeLinear"), (MS, "DequantizeLinear")}
)
"""Row by row where scale and zero point are constants."""

NORMS = frozenset(
    {
        ("", "LayerNormalization"),
        ("", "RMSNormalization"),
        ("", "SimplifiedLayerNormalization"),
        ("", "Softmax"),
        ("", "LogSoftmax"),
        ("", "LpNormalization"),
        (MS, "QuickGelu"),
    }
)
"""Row by row where their axis is the last."""

REDUCTIONS = frozenset(("", name) for name in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2", "ReduceSumSquare"))

LAYOUT = frozenset(
    ("", name) for name in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Cast")
)
SELECTIONS = frozenset(("", name) for name in ("Slice", "Gather", "GatherElements", "GatherND"))

_DERIVES = frozenset(
    ("", name) for name in ("Transpose", "Identity", "Cast", "DequantizeLinear", "Reshape", "Squeeze", "Unsqueeze")
) | {(MS, "DequantizeLinear")}
_DEPTH = 8


def is_constant(value: ir.Value | None, formals: Collection[ir.Value] = (), depth: int = _DEPTH) -> bool:
    """True where only constants (or ``formals``) and changes of layout or type make the value."""
    if value is None or value in formals or constant_of(value) is not None:
        return True
    node = value.producer()
    if node is None or key_of(node) not in _DERIVES or depth == 0:
        return False
    return all(is_constant(given, formals, depth - 1) for given in node.inputs)


def last_axis(node: ir.Node, rank: int) -> bool:
    """True where the operator works along the last axis of a value of this rank."""
    attribute = node.attributes.get("axis")
    return attribute is None or attribute.as_int() in (-1, rank - 1)


def data_ports(node: ir.Node) -> range:
    """The operands that carry rows: the first one alone where the others are shapes, axes, indices or constants."""
    key = key_of(node)
    return range(1) if key not in ELEMENTWISE else range(len(node.inputs))
