#!/usr/bin/env bash
# Guess: every comparison with NaN but != is false, so Greater(a, b) and Less(b, a) are one mask, whichever an exporter
# spells. What happens in OpenVINO 2026.4.1's CPU (x86): Greater(NaN, b) and GreaterOrEqual(NaN, b) are true for every b,
# infinity included; Less, LessOrEqual and Equal are false, and Greater(b, NaN) is false. onnxruntime 1.32.0 and the
# reference say false everywhere. Hurt: who counts or masks outliers by x > limit (a NaN passes as a large value and
# fails as a small one), and who turns Less(b, a) into Greater(a, b), a rewrite that is exact on every other runtime.
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

model = onnx.parser.parse_model(
    '<ir_version: 10, opset_import: ["" : 21]> g (float[4] a, float[4] b) => (bool[4] g, bool[4] e, bool[4] l, bool[4] n) '
    "{ g = Greater(a, b) e = GreaterOrEqual(a, b) l = Less(b, a) n = IsNaN(a) }"
)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "model.onnx")
nan = float("nan")
feeds = {"a": np.array([nan, nan, nan, 2], np.float32), "b": np.array([0, np.inf, -1, 1], np.float32)}
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
compiled = openvino.Core().compile_model("model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
theirs = [found.tolist() for found in session.run(None, feeds)]
ours = [np.asarray(found).tolist() for found in compiled(feeds).values()]
print("openvino", openvino.__version__, "onnxruntime", onnxruntime.__version__)
print("a > b, a >= b, b < a, isnan(a): onnxruntime", theirs, "OpenVINO", ours)
last, nans = [False, False, False, True], [True, True, True, False]
assert theirs == [last, last, last, nans]
assert ours == [[True] * 4, [True] * 4, last, nans]
EOF
