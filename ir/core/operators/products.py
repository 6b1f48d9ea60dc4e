"""Operators that sum products have their rows here: of rows by a weight, of two computed tensors, of a kernel."""

from __future__ import annotations

from .base import MS, Grids, Key, Operator, Product

_PACKED = Product(packed=True)
_INTEGERS = Product(integers=True)

PRODUCTS: dict[Key, Operator] = {
    ("", "MatMul"): Operator(
        dtype=0, tells={0: "projection"}, product=Product(channel=-1, pairs=True), grids=Grids.ALL
    ),
    ("", "Gemm"): Operator(dtype=0, tells={0: "projection"}, product=Product(any_rank=False), grids=Grids.ALL),
    ("", "Einsum"): Operator(dtype=0, product=Product(rows=None, pairs=True), grids=Grids.ALL),
    (MS, "FusedMatMul"): Operator(dtype=0, product=Product(pairs=True), grids=Grids.ALL),
    (MS, "FusedGemm"): Operator(product=Product(any_rank=False)),
    # weights that are no floats
    (MS, "MatMulNBits"): Operator(dtype=0, tells={0: "projection"}, product=_PACKED, grids=Grids.ALL),
    (MS, "MatMulBnb4"): Operator(product=_PACKED),
    (MS, "MatMulFpQ4"): Operator(product=_PACKED),
    (MS, "GemmFloat8"): Operator(product=Product(any_rank=False, packed=True)),
    ("", "MatMulInteger"): Operator(product=_INTEGERS),
    (MS, "MatMulIntegerToFloat"): Operator(product=_INTEGERS),
    ("", "QLinearMatMul"): Operator(product=Product(weight=3, integers=True)),
    (MS, "QGemm"): Operator(product=Product(weight=3, any_rank=False, integers=True)),
    (MS, "DynamicQuantizeMatMul"): Operator(product=_INTEGERS, whole_scale=True, rounds=True),
    (MS, "QMoE"): Operator(rounds=True),
    # kernels
    ("", "Conv"): Operator(
        dtype=0,
        tells={0: "convolution"},
        mixes=True,
        product=Product(channel=0, any_rank=False, slides=True),
        grids=Grids.ALL,
    ),
    ("", "ConvTranspose"): Operator(dtype=0, product=Product(rows=None, channel=1, slides=True), grids=Grids.ALL),
    ("", "ConvInteger"): Operator(product=Product(rows=None, integers=True, slides=True)),
    ("", "QLinearConv"): Operator(product=Product(rows=None, weight=3, integers=True, slides=True)),
}
