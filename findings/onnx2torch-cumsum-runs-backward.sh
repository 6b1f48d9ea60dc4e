#!/usr/bin/env bash
# Guess: onnx2torch 1.5.15 converts CumSum with its attributes at their defaults of 0 where they are left out, as
# exporters do. What happens: without reverse written out the sum runs from the end: [1, 1, 0] gives [2, 1, 0] instead of
# [1, 2, 2]; with reverse=0 beside it it is right. No error, no warning. Hurt: decoders that count positions by a sum
# over the attention mask, as transformers' exports do: every position is another one after a way through torch (fine
# tuning, quantization, a second export), and only the logits show it. The conversion of Pow of an integer by a float
# gives floats, where the operator keeps the integer type of its first input.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2 numpy==2.4.6 onnxruntime==1.32.0 onnx2torch==1.5.15 torch==2.14.1 torchvision==0.29.1
venv/bin/python -W ignore - <<'EOF'
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import parser
from onnx2torch import convert

print("onnx2torch", version("onnx2torch"), "torch", torch.__version__, "onnxruntime", onnxruntime.__version__)


def both(text, feeds):
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 17]> {text}')
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    there = convert(model)(*map(torch.from_numpy, feeds.values())).numpy()
    return session.run(None, feeds)[0], there


wrong = []
for attributes in ("", "<exclusive = 1>", "<reverse = 1>", "<exclusive = 1, reverse = 0>", "<exclusive = 1, reverse = 1>"):
    text = f"g (float[3] a) => (float[3] y) <int64 axis = {{0}}> {{ y = CumSum{attributes}(a, axis) }}"
    runtime, converted = both(text, {"a": np.array([1, 1, 0], np.float32)})
    print("CumSum", attributes, "onnxruntime", runtime.tolist(), "onnx2torch", converted.tolist())
    if not np.array_equal(runtime, converted):
        wrong.append((attributes, runtime.tolist(), converted.tolist()))
assert wrong == [("", [1, 2, 2], [2, 1, 0]), ("<exclusive = 1>", [0, 1, 2], [1, 0, 0])]

feeds = {"a": np.array([2, 3]), "b": np.array([0.5, 2], np.float32)}
runtime, converted = both("g (int64[2] a, float[2] b) => (int64[2] y) { y = Pow(a, b) }", feeds)
print("2 ** 0.5, 3 ** 2.0 of int64: onnxruntime", runtime.tolist(), "onnx2torch", converted.tolist())
assert runtime.dtype == np.int64
assert converted.dtype == np.float32
EOF
