#!/usr/bin/env bash
# Guess: a graph whose output is bfloat16 or int4 (a cache kept in bfloat16, a packed weight) runs from Python and gives
# an array of ml_dtypes, as onnx's own helpers do; or both runtimes refuse alike. What happens: onnxruntime 1.32.0 loads
# and runs the graph and then raises "No corresponding Numpy type" while it hands the result over. OpenVINO 2026.4.1
# hands bfloat16 over as float16 with the bits of bfloat16: 1.0 arrives as 1.875, 0.5 as 1.75, no error. Its int4 output
# is a byte array of another shape. Hurt: comparisons of bfloat16 caches between runtimes; hosts that carry a state from
# run to run through numpy.
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


def graph(kind, code):
    text = f'<ir_version: 10, opset_import: ["" : 21]> g (float[3] a) => ({kind}[3] y) {{ y = Cast<to = {code}>(a) }}'
    model = parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    return {"a": np.array([1, 0.5, 2], np.float32)}


def refusal(feeds):
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    try:
        session.run(None, feeds)
    except RuntimeError as error:
        return str(error)
    return ""


def openvinos(feeds):
    return np.asarray(next(iter(openvino.Core().compile_model("model.onnx", "CPU")(feeds).values())))


feeds = graph("bfloat16", 16)
refused, given = refusal(feeds), openvinos(feeds)
print("bfloat16: onnxruntime:", refused, "| OpenVINO:", given.dtype, given.tolist(), "for [1.0, 0.5, 2.0]")
assert "No corresponding Numpy type" in refused
assert given.dtype == np.float16 and given[0] == 1.875
feeds = graph("int4", 22)
refused, given = refusal(feeds), openvinos(feeds)
print("int4: onnxruntime:", refused, "| OpenVINO:", given.dtype, given.shape)
assert "No corresponding Numpy type" in refused
assert given.shape != (3,)
EOF
