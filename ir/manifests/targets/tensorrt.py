"""NVIDIA TensorRT takes what its ONNX parser reads."""

from __future__ import annotations

from .base import Source, TargetTable

GUIDE = Source("TensorRT 11.x, ONNX Opset Guide: opsets 9 to 25", "2026-11-30")
DIMS = Source("TensorRT 11.x, nvinfer1::Dims::MAX_DIMS is 8", "2026-11-30")
TABLE = TargetTable(
    name="tensorrt",
    version="TensorRT 11",
    opset=22,
    source=GUIDE,
    functions=True,
    max_rank=8,
    empty_inputs=True,
    limits={"max_rank": DIMS, "opset": GUIDE},
)
