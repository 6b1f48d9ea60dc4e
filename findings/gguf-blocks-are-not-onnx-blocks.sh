#!/usr/bin/env bash
# Guess: a Q4_0 or Q8_0 block of a GGUF file is what ONNX calls blocked quantization: 32 numbers, one scale, 4 or 8 bits,
# so its bytes go into an int4/int8 initializer as they are, and quantizing anew with QuantizeLinear and the block's own
# scale gives the same integers. What happens (gguf 0.19.0 against onnx 1.23.2): 1. a Q4_0 byte holds numbers i and
# i + 16 of its block, an ONNX byte two neighbours: the bytes taken over are a permutation within each block. 2. The
# scale is negative where the largest number is positive. 3. Q8_0 rounds halves away from zero, QuantizeLinear to even:
# 0.5, 2.5 and -2.5 steps give 1, 3, -3 there and 0, 2, -2 here. Hurt: converters from GGUF to int4 graphs: products
# keep their size and lose their meaning; and whoever compares integers after requantizing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2 numpy==2.4.6 gguf==0.19.0
venv/bin/python - <<'EOF'
from importlib.metadata import version

import numpy as np
import onnx
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

print("gguf", version("gguf"), "onnx", onnx.__version__)

block = np.arange(-16, 16, dtype=np.float32).reshape(1, 32)
packed = quantize(block, GGMLQuantizationType.Q4_0)[0]
scale, data = float(packed[:2].view(np.float16)[0]), packed[2:].tobytes()
theirs = dequantize(quantize(block, GGMLQuantizationType.Q4_0), GGMLQuantizationType.Q4_0)[0]
taken = helper.make_tensor("w", TensorProto.UINT4, [32], data, raw=True)
ours = (numpy_helper.to_array(taken).astype(np.float32) - 8) * scale
print("Q4_0 read by gguf:    ", theirs[:6], "scale", scale)
print("its bytes read as onnx:", ours[:6])
assert not np.array_equal(theirs, ours)
assert np.array_equal(theirs, np.concatenate([ours[0::2], ours[1::2]]))

negated = quantize(-block, GGMLQuantizationType.Q4_0)[0]
scales = scale, float(negated[:2].view(np.float16)[0])
print("scale where the largest number is negative, positive:", scales)
assert scales[0] > 0 > scales[1]

steps = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, -2.5, *[0] * 25, 127]], np.float32)  # the last one makes the scale 1
gguf8 = quantize(steps, GGMLQuantizationType.Q8_0)[0, 2:8].view(np.int8)
model = parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]>
g (float[1, 32] a) => (int8[1, 32] y) <float s = {1}, int8 z = {0}> { y = QuantizeLinear(a, s, z) }""")
onnx8 = ReferenceEvaluator(model).run(None, {"a": steps})[0][0, :6]
print("halves by Q8_0:", gguf8.tolist(), "by QuantizeLinear:", onnx8.tolist())
assert gguf8.tolist() == [1, 2, 3, -1, -2, -3]
assert onnx8.tolist() == [0, 2, 2, 0, -2, -2]
EOF
