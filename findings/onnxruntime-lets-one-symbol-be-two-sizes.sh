#!/usr/bin/env bash
# Guess: two inputs that share a dim_param ("batch") must be fed with one size; onnxruntime holds fed shapes against the
# graph's, so it says so. What happens: onnxruntime 1.32.0 checks numbers only. A symbol may be 2 in one input and 3 in
# another of the same run, and an output that the graph declares as [B, 4] may come out as [B, 5]; no error. Hurt:
# whoever takes "it ran" for a proof that a binding of symbols is coherent: a cache of another batch or length
# broadcasts, and the compiler that believes the symbols refuses or reads beyond.
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

onnxruntime.set_default_logger_severity(4)
print("onnxruntime", onnxruntime.__version__)
model = parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]>
g (float[batch] a, float[batch, 1] b) => (float[batch, batch] y, float[batch] z) { y = Add(a, b) z = Identity(a) }""")
onnx.checker.check_model(model, full_check=True)
session = onnxruntime.InferenceSession(model.SerializeToString())
y, z = session.run(None, {"a": np.zeros(2, np.float32), "b": np.zeros((3, 1), np.float32)})
print("batch is 2 in one input and 3 in the other; y is declared [batch, batch] and comes out", y.shape)
assert y.shape == (3, 2) and z.shape == (2,)
EOF
