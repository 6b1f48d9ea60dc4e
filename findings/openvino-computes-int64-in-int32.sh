#!/usr/bin/env bash
# Guess: a runtime that takes an int64 graph and answers int64 computes in int64, or refuses. What happens: OpenVINO
# 2026.4.1's CPU computes every int64 tensor in int32 and gives the result back as int64. Sums wrap, two ids that differ
# by 2**32 are equal, and a Slice whose end arrives at run time as INT64_MAX ("to the end", as exporters write it) loses
# its last row, because the end becomes -1. The same Slice with a constant end is right. Hurt: passes that leave
# INT64_MAX or INT32_MAX sentinels in shape arithmetic that is not folded; hashes and packed ids; tests on OpenVINO that
# compare logits of the last token.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2 numpy==2.4.6 onnxruntime==1.32.0 openvino==2026.4.1
venv/bin/python - <<'EOF'
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import parser

print("openvino", openvino.__version__, "onnxruntime", onnxruntime.__version__)


def both(text, feeds):
    """The first output of one graph on onnxruntime and on OpenVINO's CPU in float32."""
    model = parser.parse_model('<ir_version: 10, opset_import: ["" : 21]> ' + text)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model("model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return session.run(None, feeds)[0], np.asarray(next(iter(compiled(feeds).values())))

added = both("g (int64[2] a, int64[2] b) => (int64[2] y) { y = Add(a, b) }", {"a": np.array([2**40, 5]), "b": np.array([1, 1])})
print("2**40 + 1:", added[0][0], "on onnxruntime,", added[1][0], "on OpenVINO, as", added[1].dtype)
equal = both("g (int64[1] a, int64[1] b) => (bool[1] y) { y = Equal(a, b) }", {"a": np.array([2**32 + 5]), "b": np.array([5])})
print("2**32 + 5 == 5:", equal[0][0], "on onnxruntime,", equal[1][0], "on OpenVINO")
text = """g (float[4] a, int64[1] end) => (float[N] y) {
    start = Constant<value = int64[1] {1}>() axis = Constant<value = int64[1] {0}>() y = Slice(a, start, end, axis) }"""
rows = np.arange(4, dtype=np.float32)
sliced = both(text, {"a": rows, "end": np.array([2**63 - 1])})
print("a[1:INT64_MAX]:", sliced[0].tolist(), "on onnxruntime,", sliced[1].tolist(), "on OpenVINO")
assert added[0][0] == 2**40 + 1 and added[1][0] == 1 and added[1].dtype == np.int64
assert not equal[0][0] and equal[1][0]
assert sliced[0].tolist() == [1, 2, 3] and sliced[1].tolist() == [1, 2]
EOF
