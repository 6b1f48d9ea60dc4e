#!/usr/bin/env bash
# Guess: ReduceMax over an axis without entries gives minus infinity, as its text says (opset 18 and later), so that it is
# neutral in what follows: exp(it) is 0, and maximum(it, x) is x. What happens in OpenVINO 2026.4.1's CPU: it gives
# -3.4028235e38, the least float32; ReduceMin likewise gives the largest. onnxruntime 1.32.0 and the reference give the
# infinities. Hurt: online softmax over an empty past (the first run of a decoder whose cache has no row yet): the
# difference of two such maxima is 0 where it should be NaN or be caught by IsInf, so a guard of the form
# Where(IsInf(m), 0, m) never takes effect, and -3.4e38 goes on into the sums.
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
    '<ir_version: 10, opset_import: ["" : 21]> g (float[N,2] a) => (float[2] most, float[2] least, bool[2] empty) '
    "{ k = Constant<value = int64[1] {0}>() most = ReduceMax<keepdims = 0>(a, k) least = ReduceMin<keepdims = 0>(a, k) "
    "empty = IsInf(most) }"
)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "model.onnx")
feeds = {"a": np.zeros((0, 2), np.float32)}
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
compiled = openvino.Core().compile_model("model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
theirs = [found.tolist() for found in session.run(None, feeds)]
ours = [np.asarray(found).tolist() for found in compiled(feeds).values()]
print("openvino", openvino.__version__, "onnxruntime", onnxruntime.__version__, "max, min, isinf:", theirs, ours)
limit = float(np.finfo(np.float32).max)
assert theirs == [[-np.inf] * 2, [np.inf] * 2, [True, True]]
assert ours == [[-limit] * 2, [limit] * 2, [False, False]]
EOF
