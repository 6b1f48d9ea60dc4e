"""Operators that compute item by item, along an axis, or a norm have their rows here."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from .base import ALL, MS, Grids, Key, Operator, SkipNorm

_BOOL, _INT64 = ir.DataType.BOOL, ir.DataType.INT64


def _standard(names: Iterable[str], row: Operator) -> dict[Key, Operator]:
    return {("", name): row for name in names}


NUMERIC: dict[Key, Operator] = {
    # arithmetic through which positions, ids and sizes stay recognizable
    **_standard("Sub Mul Min Max".split(), Operator(dtype=0, elementwise=True, numbers=ALL, grids=Grids.ALL)),
    **_standard(("Add", "Sum"), Operator(dtype=0, elementwise=True, numbers=ALL, adds=True, grids=Grids.ALL)),
    ("", "Div"): Operator(dtype=0, elementwise=True, numbers=(0,), grids=Grids.ALL),
    ("", "Mod"): Operator(dtype=0, elementwise=True, numbers=(0,)),
    **_standard("Abs Clip Neg".split(), Operator(dtype=0, elementwise=True, numbers=(0,), grids=Grids.ALL)),
    # functions of one number
    **_standard("Ceil Exp Floor Log Reciprocal Sqrt".split(), Operator(dtype=0, elementwise=True, grids=Grids.ALL)),
    **_standard(
        "Elu Erf Gelu HardSigmoid HardSwish LeakyRelu PRelu Relu Sigmoid Softplus Swish Tanh".split(),
        Operator(dtype=0, bends=True, elementwise=True, grids=Grids.ALL),
    ),
    **_standard("Celu Mish Selu Softsign ThresholdedRelu".split(), Operator(dtype=0, bends=True, elementwise=True)),
    ("", "Round"): Operator(dtype=0, elementwise=True),
    **_standard("Cos Sin".split(), Operator(dtype=0, elementwise=True, tells={0: "angle"}, grids=Grids.ALL)),
    ("", "Sign"): Operator(dtype=0, elementwise=True, truth=(0,), grids=Grids.ALL),
    ("", "Mean"): Operator(dtype=0, grids=Grids.ALL),
    ("", "Pow"): Operator(dtype=0, elementwise=True, norm=True, grids=Grids.ALL),  # the square of RMSNorm, spelt out
    **{
        (MS, name): Operator(dtype=0, bends=True, elementwise=True, grids=Grids.ALL)
        for name in ("BiasGelu", "FastGelu")
    },
    (MS, "Gelu"): Operator(dtype=0, bends=True, elementwise=True),
    (MS, "QuickGelu"): Operator(dtype=0, bends=True, elementwise=True, by_row=True, grids=Grids.ALL),
    # truth
    **_standard("And Equal Or Xor".split(), Operator(dtype=_BOOL, elementwise=True, truth=ALL)),
    **_standard(
        "Greater GreaterOrEqual Less LessOrEqual".split(),
        Operator(dtype=_BOOL, elementwise=True, truth=ALL, orders=True),
    ),
    **_standard("IsInf IsNaN Not".split(), Operator(dtype=_BOOL, elementwise=True, truth=(0,))),
    **_standard("BitwiseAnd BitwiseOr".split(), Operator(dtype=0, elementwise=True)),
    # along an axis
    **_standard(("ReduceMin", "ReduceSum"), Operator(dtype=0, truth=(0,), folds=True, reduces=True, grids=Grids.ALL)),
    ("", "ReduceMax"): Operator(dtype=0, truth=(0,), tells={0: "extreme"}, folds=True, reduces=True, grids=Grids.ALL),
    ("", "ReduceMean"): Operator(dtype=0, norm=True, folds=True, reduces=True, grids=Grids.ALL),
    **_standard("ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp".split(), Operator(folds=True, reduces=True)),
    ("", "ReduceProd"): Operator(dtype=0, folds=True, reduces=True),
    ("", "ReduceSumSquare"): Operator(dtype=0, folds=True, reduces=True, grids=Grids.ALL),
    ("", "GlobalAveragePool"): Operator(folds=True),
    ("", "CumSum"): Operator(dtype=0, grids=Grids.ALL),
    ("", "ArgMax"): Operator(dtype=_INT64, tells={0: "extreme"}, folds=True),
    ("", "ArgMin"): Operator(dtype=_INT64, folds=True),
    ("", "NonZero"): Operator(dtype=_INT64),
    ("", "Unique"): Operator(index_results=True),
    ("", "TopK"): Operator(dtype=0, tells={0: "extreme"}, index_results=True, grids=Grids.ALL),
    ("", "Softmax"): Operator(dtype=0, tells={0: "mask"}, softmax=True, by_row=True, grids=Grids.ALL),
    (MS, "BiasSoftmax"): Operator(softmax=True),
    ("", "LogSoftmax"): Operator(dtype=0, by_row=True, grids=Grids.ALL),
    ("", "AveragePool"): Operator(dtype=0, grids=Grids.ALL),
    ("", "MaxPool"): Operator(dtype=0, index_results=True, grids=Grids.ALL),
    # norms; onnxruntime registers SimplifiedLayerNormalization in the standard's domain, where onnx does not know it
    ("", "LayerNormalization"): Operator(dtype=0, norm=True, by_row=True, grids=Grids.ALL),
    ("", "LpNormalization"): Operator(by_row=True),
    **_standard(  # the scale's type (RMSNormalization-23: result V)
        ("RMSNormalization", "SimplifiedLayerNormalization"), Operator(dtype=1, norm=True, by_row=True, grids=Grids.ALL)
    ),
    # input, skip, gamma, (beta,) bias; the sum is the fourth result (ContribOperators.md, onnxruntime 1.32)
    (MS, "SkipLayerNormalization"): Operator(
        dtype=0, norm=True, skip_norm=SkipNorm("LayerNormalization", (2, 3), 4), grids=Grids.ALL
    ),
    (MS, "SkipSimplifiedLayerNormalization"): Operator(
        dtype=0, norm=True, skip_norm=SkipNorm("SimplifiedLayerNormalization", (2,), 3), grids=Grids.ALL
    ),
    **_standard(("BatchNormalization", "InstanceNormalization"), Operator(dtype=0, grids=Grids.ALL)),
    # numbers drawn anew in each run; Dropout draws where it trains
    **_standard(
        "Bernoulli Dropout Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike".split(),
        Operator(random=True),
    ),
}
