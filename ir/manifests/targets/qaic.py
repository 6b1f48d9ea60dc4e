"""Qualcomm Cloud AI 100: what QEfficient's exports hold, and what its threads report as refused."""

from __future__ import annotations

from .base import Source, TargetTable

EXPORTS = Source("QEfficient ebf55e815: all exports are of opset 17 or 18, with local functions", "2026-08-20")
LIST = Source(
    "Cloud AI SDK, operator support: `qaic-compile -operators-supported=onnx` lists an SDK's own", "2026-11-30"
)
TABLE = TargetTable(
    name="qaic",
    version="QEfficient ebf55e815",
    opset=22,
    source=EXPORTS,
    domains=frozenset(("com.qualcomm.cloud", "com.qti.aisw.onnx")),
    functions=True,
    reads_nothing=True,
    limits={"functions": EXPORTS, "reads_nothing": EXPORTS, "domains": EXPORTS, "opset": LIST},
)
