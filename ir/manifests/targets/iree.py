"""IREE: what its ONNX importer and llvm-cpu compile, by one-node graphs; of opset 23 it takes no new operator."""

from __future__ import annotations

from .base import Rule, Source, TargetTable

RUN = Source("iree-base-compiler 3.13.0, llvm-cpu", "2026-11-30")
TABLE = TargetTable(
    name="iree",
    version="IREE 3.13.0",
    opset=22,
    source=RUN,
    qdq16=False,
    rules=(Rule("TensorScatter", False, RUN),),
    limits={"qdq16": RUN, "functions": RUN},
)
