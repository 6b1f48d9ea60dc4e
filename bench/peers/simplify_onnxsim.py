"""Simplify with onnxsim, its defaults. ``IN OUT``. It reads the weights and writes them again."""

import sys

import onnx
import onnxsim

model, sound = onnxsim.simplify(sys.argv[1])
if not sound:
    sys.exit("onnxsim's own check failed")
onnx.save(model, sys.argv[2])
