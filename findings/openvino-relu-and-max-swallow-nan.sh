#!/usr/bin/env bash
# Guess: a NaN that enters Relu, Max or Clip comes out, as from onnxruntime, numpy and onnx's reference, so a broken
# activation reaches the logits and is seen. What happens: on OpenVINO 2026.4.1's CPU Relu(NaN) and Max(NaN, 0) are 0,
# and ReduceMax over an empty axis is -3.4028235e38 where ONNX wants -inf. Hurt: whoever looks for NaN at the outputs of
# a run on OpenVINO: the NaN of a fully masked row or of an overflow is gone behind the next activation, and the answer
# looks fine.
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

values = np.array([np.nan, 1], np.float32)
relu = both("g (float[2] a) => (float[2] y) { y = Relu(a) }", {"a": values})
largest = both("g (float[2] a) => (float[2] y) { z = Constant<value = float {0.0}>() y = Max(a, z) }", {"a": values})
text = "g (float[2, N] a) => (float[2] y) { x = Constant<value = int64[1] {1}>() y = ReduceMax<keepdims = 0>(a, x) }"
empty = both(text, {"a": np.zeros((2, 0), np.float32)})
for name, (ours, theirs) in {"Relu": relu, "Max": largest, "ReduceMax of nothing": empty}.items():
    print(name, "onnxruntime", ours.tolist(), "OpenVINO", theirs.tolist())
assert np.isnan(relu[0][0]) and relu[1].tolist() == [0, 1]
assert np.isnan(largest[0][0]) and largest[1].tolist() == [0, 1]
assert np.isneginf(empty[0]).all() and (empty[1] == np.finfo(np.float32).min).all()
EOF
