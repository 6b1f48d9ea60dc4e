"""Any consumer of ai.onnx takes the standard's own operators, and nothing else is asked of it."""

from __future__ import annotations

from .base import Source, TargetTable

TABLE = TargetTable(
    name="standard",
    version="onnx 1.23.2",
    opset=0,
    source=Source("onnx 1.23.2, the operator schemas of the graph's own opset", "2026-11-30"),
)
