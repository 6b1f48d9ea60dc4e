#!/usr/bin/env bash
# Guess: Gather with an index outside the axis fails, as the operator's text says ("it is an error if any index is out
# of bounds") and as onnxruntime does. What happens: OpenVINO 2026.4.1's CPU gives zeros for it and says nothing. Hurt:
# a position beyond the rotary table (cos and sin both 0: the query and the key vanish, every score is 0), a token id
# beyond the embedding, a cache row beyond the context: plausible logits where onnxruntime would have stopped.
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

text = "g (float[4] table, int64[3] ids) => (float[3] y) { y = Gather(table, ids) }"
table = np.array([1, 2, 3, 4], np.float32)
inside = both(text, {"table": table, "ids": np.array([0, 3, -1])})
assert inside[0].tolist() == inside[1].tolist() == [1, 4, 4]
refused = ""
try:
    both(text, {"table": table, "ids": np.array([0, 4, -5])})
except Exception as error:
    refused = str(error)
print("onnxruntime:", refused[-90:])
given = openvino.Core().compile_model("model.onnx", "CPU")({"table": table, "ids": np.array([0, 4, -5])})
given = np.asarray(next(iter(given.values()))).tolist()
print("OpenVINO:", given)
assert "out of data bounds" in refused
assert given == [1, 0, 0]
EOF
