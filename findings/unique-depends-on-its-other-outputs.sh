#!/usr/bin/env bash
# Guess: Unique<sorted=0> gives values in the order in which they first appear, whichever of its outputs are asked for.
# What happens when only the values are asked for: onnx 1.23.2's ReferenceEvaluator sorts them all the same, and OpenVINO
# 2026.4.1's CPU gives the first one and then zeros. With all four outputs both are right; onnxruntime 1.32.0 always is.
# Hurt: graphs that collect distinct token ids in the order of the text (penalties, prefix sets) and read the values
# alone, after a pass has dropped the outputs that nothing uses.
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
FEEDS = {"a": np.array([3, 1, 3, 2, 1])}


def values(outputs, results):
    model = parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 17]>
    g (int64[5] a) => ({outputs}) {{ {results} = Unique<sorted = 0>(a) }}""")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model("model.onnx", "CPU")
    found = session.run(None, FEEDS)[0], ReferenceEvaluator(model).run(None, FEEDS)[0], compiled(FEEDS)[0]
    return [np.asarray(array).tolist() for array in found]


alone = values("int64[N] y", "y")
whole = values("int64[N] y, int64[M] i, int64[K] v, int64[C] c", "y, i, v, c")
print("onnxruntime, reference, OpenVINO; values alone:", alone, "with all outputs:", whole)
assert alone == [[3, 1, 2], [1, 2, 3], [3, 0, 0]]
assert whole == [[3, 1, 2]] * 3
EOF
