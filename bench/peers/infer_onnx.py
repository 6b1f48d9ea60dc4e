"""Shapes with onnx's own inference, data propagation on, as often as asked. ``IN OUT TIMES``."""

import sys

import onnx
from onnx import shape_inference

model = onnx.load(sys.argv[1], load_external_data=False)
for _ in range(int(sys.argv[3])):
    shape_inference.infer_shapes(model, data_prop=True, strict_mode=False)
