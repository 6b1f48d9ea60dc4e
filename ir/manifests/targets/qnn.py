"""Qualcomm AI Engine Direct (QNN) takes what its converter's list of ONNX operators names."""

from __future__ import annotations

from .base import Rule, Source, TargetTable

CONVERTER = Source("QNN SDK, supported ONNX operators (80-63442-10): versions up to opset 24", "2026-11-30")
HTP = Source("QNN SDK 2.39, HTP operator revisions: tensors of rank 5 at most", "2026-11-30")
FALLBACK = Source("onnxruntime-qnn issue 646: standard Attention falls back to the CPU", "2026-11-30")
TABLE = TargetTable(
    name="qnn",
    version="QNN SDK 2.45",
    opset=22,
    source=CONVERTER,
    max_rank=5,
    dynamic=False,
    control_flow=False,
    empty_inputs=False,
    rules=(
        Rule("Attention", False, FALLBACK),
        Rule("RMSNormalization", True, Source("QNN SDK 2.44, HTP operator revisions: RmsNorm", "2026-11-30")),
    ),
    limits={"max_rank": HTP, "dynamic": CONVERTER, "control_flow": CONVERTER},
)
