"""Shapes with onnx-shape-inference on onnx_ir, collector off, as often as asked. ``IN OUT TIMES``."""

import gc
import sys

import onnx_ir as ir
import onnx_shape_inference

gc.freeze()
gc.disable()
for _ in range(int(sys.argv[3])):
    onnx_shape_inference.infer_symbolic_shapes(ir.load(sys.argv[1]))
