"""IREE: what its ONNX importer and llvm-cpu compile, by one-node graphs; of opset 23 it takes no new operator."""

from __future__ import annotations

from .base import Rule, Source, TargetTable

RUN = Source("iree-base-compiler 3.13.0, llvm-cpu", "2026-11-30")
GELU = Source("iree-base-compiler 3.13.0, llvm-cpu, over -8 to 8", "2026-12-01")
BLOCKS = Source("iree-base-compiler 3.13.0: 'failed to legalize operation onnx.DequantizeLinear'", "2026-12-01")
TABLE = TargetTable(
    name="iree",
    version="IREE 3.13.0",
    opset=22,
    source=RUN,
    qdq16=False,
    rules=(
        Rule("TensorScatter", False, RUN),
        Rule(
            "Gelu",
            True,
            GELU,
            attributes={"approximate": "none"},
            why="approximate=tanh is off by 5e-5 around 1.3: its formula out of Tanh is exact",
        ),
        Rule(
            "DequantizeLinear",
            True,
            BLOCKS,
            attributes={"block_size": 0},
            why="weights in blocks are not legalized",
        ),
    ),
    limits={"qdq16": RUN, "functions": RUN},
)
