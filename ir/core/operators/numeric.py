"""Rows of operators that compute: element by element, along an axis, or as products."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from .base import ALL, MS, Grids, Key, Operator

_BOOL, _INT64 = ir.DataType.BOOL, ir.DataType.INT64


def _standard(names: Iterable[str], row: Operator) -> dict[Key, Operator]:
    return {("", name): row for name in names}


NUMERIC: dict[Key, Operator] = {
    # arithmetic through which positions, ids and sizes stay recognizable
    **_standard("Add Sub Mul Min Max".split(), Operator(dtype=0, elementwise=True, numbers=ALL, grids=Grids.ALL)),
    ("", "Div"): Operator(dtype=0, elementwise=True, numbers=(0,), grids=Grids.ALL),
    ("", "Mod"): Operator(dtype=0, elementwise=True, numbers=(0,)),
    **_standard("Abs Clip Neg".split(), Operator(dtype=0, elementwise=True, numbers=(0,), grids=Grids.ALL)),
    # functions of one number
    **_standard(
        "Ceil Erf Exp Floor Gelu Log Reciprocal Relu Sigmoid Sqrt Tanh".split(),
        Operator(dtype=0, elementwise=True, grids=Grids.ALL),
    ),
    **_standard(
        "Elu HardSigmoid HardSwish LeakyRelu PRelu Softplus Swish".split(),
        Operator(dtype=0, elementwise=True, grids=Grids.ALL),
    ),
    **_standard("Celu Mish Round Selu Softsign ThresholdedRelu".split(), Operator(dtype=0, elementwise=True)),
    **_standard("Cos Sin".split(), Operator(dtype=0, elementwise=True, tells={0: "angle"}, grids=Grids.ALL)),
    ("", "Sign"): Operator(dtype=0, elementwise=True, truth=(0,), grids=Grids.ALL),
    ("", "Sum"): Operator(dtype=0, elementwise=True, grids=Grids.ALL),
    ("", "Mean"): Operator(dtype=0, grids=Grids.ALL),
    ("", "Pow"): Operator(dtype=0, elementwise=True, norm=True, grids=Grids.ALL),  # the square of RMSNorm, spelt out
    **{
        (MS, name): Operator(dtype=0, elementwise=True, grids=Grids.ALL if name != "Gelu" else None)
        for name in "BiasGelu FastGelu Gelu QuickGelu".split()
    },
    # truth
    **_standard(
        "And Equal Greater GreaterOrEqual Less LessOrEqual Or Xor".split(),
        Operator(dtype=_BOOL, elementwise=True, truth=ALL),
    ),
    **_standard("IsInf IsNaN Not".split(), Operator(dtype=_BOOL, elementwise=True, truth=(0,))),
    **_standard("BitwiseAnd BitwiseOr".split(), Operator(dtype=0, elementwise=True)),
    # along an axis
    **_standard(("ReduceMin", "ReduceSum"), Operator(dtype=0, truth=(0,), grids=Grids.ALL)),
    ("", "ReduceMax"): Operator(dtype=0, truth=(0,), tells={0: "extreme"}, grids=Grids.ALL),
    ("", "ReduceMean"): Operator(dtype=0, norm=True, grids=Grids.ALL),
    ("", "ReduceProd"): Operator(dtype=0),
    ("", "ReduceSumSquare"): Operator(dtype=0, grids=Grids.ALL),
    ("", "CumSum"): Operator(dtype=0, grids=Grids.ALL),
    ("", "ArgMax"): Operator(dtype=_INT64, tells={0: "extreme"}),
    **_standard(("ArgMin", "NonZero"), Operator(dtype=_INT64)),
    ("", "TopK"): Operator(dtype=0, tells={0: "extreme"}, grids=Grids.ALL),
    ("", "Softmax"): Operator(dtype=0, tells={0: "mask"}, grids=Grids.ALL),
    ("", "LogSoftmax"): Operator(dtype=0, grids=Grids.ALL),
    **_standard(("AveragePool", "MaxPool"), Operator(dtype=0, grids=Grids.ALL)),
    # norms; onnxruntime registers SimplifiedLayerNormalization in the standard's domain, where onnx does not know it
    ("", "LayerNormalization"): Operator(dtype=0, norm=True, grids=Grids.ALL),
    **{
        (MS, name): Operator(dtype=0, norm=True, grids=Grids.ALL)
        for name in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
    },
    **_standard(  # the scale's type (RMSNormalization-23: result V)
        ("RMSNormalization", "SimplifiedLayerNormalization"), Operator(dtype=1, norm=True, grids=Grids.ALL)
    ),
    **_standard(("BatchNormalization", "InstanceNormalization"), Operator(dtype=0, grids=Grids.ALL)),
    # products
    **_standard(("MatMul", "Gemm"), Operator(dtype=0, tells={0: "projection"}, grids=Grids.ALL)),
    ("", "Einsum"): Operator(dtype=0, grids=Grids.ALL),
    ("", "Conv"): Operator(dtype=0, tells={0: "convolution"}, grids=Grids.ALL),
    ("", "ConvTranspose"): Operator(dtype=0, grids=Grids.ALL),
    (MS, "FusedMatMul"): Operator(dtype=0, grids=Grids.ALL),
    (MS, "MatMulNBits"): Operator(dtype=0, tells={0: "projection"}, grids=Grids.ALL),
}
