"""onnxruntime on a CPU takes its contrib operators too, and local functions."""

from __future__ import annotations

from .base import MS, Rule, Source, TargetTable

SCHEMAS = Source("onnxruntime 1.32.0, get_all_operator_schema()", "2026-11-30")
TABLE = TargetTable(
    name="ort",
    version="onnxruntime 1.32.0",
    opset=28,
    source=SCHEMAS,
    domains=frozenset((MS, "com.microsoft.nchwc", "ai.onnx.ml")),
    functions=True,
    rules=(Rule("SimplifiedLayerNormalization", True, SCHEMAS),),
)
