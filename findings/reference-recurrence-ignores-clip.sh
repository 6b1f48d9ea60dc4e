#!/usr/bin/env bash
# Guess: onnx's ReferenceEvaluator computes LSTM and GRU with every attribute of their texts, clip among them (what
# enters the activations is held between -clip and clip). What happens in onnx 1.23.2: clip is taken and not applied;
# with a strong input the states are many times what onnxruntime 1.32.0 gives, which applies it. Nothing is said. Hurt:
# streaming speech models with clipped cells, whose converted or quantized forms are held against the reference.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2 numpy==2.4.6 onnxruntime==1.32.0
venv/bin/python - <<'EOF'
import numpy as np
import onnx
import onnxruntime
from onnx import parser
from onnx.reference import ReferenceEvaluator

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)


def both(operator, gates, attributes):
    model = parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 17]>
    g (float[1, 1, 1] x, float[1, {gates}, 1] w, float[1, {gates}, 1] r) => (float[A, B, C, D] y) {{
        y = {operator}<hidden_size = 1 {attributes}>(x, w, r)
    }}""")
    onnx.checker.check_model(model, full_check=True)
    weights = np.arange(1, gates + 1, dtype=np.float32).reshape(1, gates, 1)
    feeds = {"x": np.full((1, 1, 1), 5, np.float32), "w": weights, "r": weights * np.float32(0.1)}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return float(session.run(None, feeds)[0].item()), float(ReferenceEvaluator(model).run(None, feeds)[0].item())


for operator, gates in (("LSTM", 4), ("GRU", 3)):
    plain, clipped = both(operator, gates, ""), both(operator, gates, ", clip = 0.1")
    print(operator, "without clip: onnxruntime, reference", plain, "with clip = 0.1:", clipped)
    assert abs(plain[0] - plain[1]) < 1e-5
    assert abs(clipped[0] - plain[0]) > 0.01 * abs(plain[0])  # onnxruntime applies it
    assert clipped[1] == plain[1]  # the reference does not
EOF
