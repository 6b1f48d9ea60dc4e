"""OpenVINO: what its ONNX frontend reads and its CPU plug-in compiles, by one-node graphs of static shape."""

from __future__ import annotations

from .base import MS, Rule, Source, TargetTable

RUN = Source("OpenVINO 2026.4.1, run on its CPU plug-in", "2026-11-30")
TABLE = TargetTable(
    name="openvino",
    version="OpenVINO 2026.4.1",
    opset=22,
    source=RUN,
    qdq16=False,
    rules=(
        Rule(
            f"{MS}.GroupQueryAttention",
            False,
            RUN,
            why="its keys and values must come in as tensors, and options beside the plain ones are not read",
        ),
        Rule("TensorScatter", False, RUN),
        Rule("RMSNormalization", True, RUN),  # of opset 23
        Rule("Attention", True, RUN),  # of opset 23, causal, four-dimensional
    ),
    limits={"functions": RUN, "qdq16": RUN},
)
