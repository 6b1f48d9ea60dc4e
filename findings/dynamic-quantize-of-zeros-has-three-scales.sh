#!/usr/bin/env bash
# Guess: DynamicQuantizeLinear is arithmetic that its text spells out, so every runtime gives one scale and one set of
# integers; a row of zeros (padding) gives some harmless scale. What happens: for an all-zero tensor onnxruntime 1.32.0
# gives the scale 1, onnx 1.23.2's ReferenceEvaluator 1/255, and OpenVINO 2026.4.1 gives 0. For [1, 2, 3, 4], where 2
# lies between two steps, OpenVINO rounds to 128 and the two others to 127. Hurt: whoever divides by the scale (a fused
# requantization, a host that merges scales): infinities for padded rows on one runtime, right numbers on the other;
# and whoever compares integers of dynamically quantized graphs between runtimes.
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
from onnx.reference import ReferenceEvaluator

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__, "openvino", openvino.__version__)
model = parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]>
g (float[4] a) => (uint8[4] y, float s, uint8 z) { y, s, z = DynamicQuantizeLinear(a) }""")
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "model.onnx")
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
compiled = openvino.Core().compile_model("model.onnx", "CPU")
reference = ReferenceEvaluator(model)


def answers(values):
    feeds = {"a": np.array(values, np.float32)}
    return {
        "onnxruntime": session.run(None, feeds),
        "reference": reference.run(None, feeds),
        "OpenVINO": [np.asarray(compiled(feeds)[port]) for port in compiled.outputs],
    }


scales = {name: float(found[1]) for name, found in answers([0, 0, 0, 0]).items()}
integers = {name: found[0].tolist() for name, found in answers([1, 2, 3, 4]).items()}
print("scale of zeros:", scales)
print("integers of 1, 2, 3, 4:", integers)
assert scales["onnxruntime"] == 1.0
assert scales["OpenVINO"] == 0.0
assert abs(scales["reference"] - 1 / 255) < 1e-6
assert integers["onnxruntime"] == integers["reference"] == [64, 127, 191, 255]
assert integers["OpenVINO"] == [64, 128, 191, 255]
EOF
