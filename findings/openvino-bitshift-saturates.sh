#!/usr/bin/env bash
# Guess: BitShift moves bits, and those that leave the type on the left are gone; a graph that unpacks two 4-bit weights
# of a byte by << 4 and >> 4 does so everywhere. What happens: OpenVINO 2026.4.1's CPU saturates: 0xAB << 4 is 0xFF and
# not 0xB0, so the low nibble of every byte comes out as 15, and 1 << 8 is 255 instead of 0. No error; masking with
# BitwiseAnd first is right in all three. Hurt: graphs that carry packed weights and unpack them by shifts, as exporters
# below opset 21 (without int4) do.
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
FEEDS = {"a": np.array([0xAB, 0x7C, 0x01], np.uint8)}
GRAPHS = {
    "low nibble by shifts": 'b = BitShift<direction = "LEFT">(a, four) y = BitShift<direction = "RIGHT">(b, four)',
    "low nibble by a mask": "y = BitwiseAnd(a, low)",
}
found = {}
for name, nodes in GRAPHS.items():
    model = parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 18]>
    g (uint8[3] a) => (uint8[3] y) <uint8[1] four = {{4}}, uint8[1] low = {{15}}> {{ {nodes} }}""")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model("model.onnx", "CPU")
    found[name] = {
        "onnxruntime": session.run(None, FEEDS)[0].tolist(),
        "reference": ReferenceEvaluator(model).run(None, FEEDS)[0].tolist(),
        "OpenVINO": np.asarray(compiled(FEEDS)[0]).tolist(),
    }
    print(name, found[name])
right = [0xB, 0xC, 0x1]
shifts, mask = found.values()
assert list(mask.values()) == [right] * 3
assert shifts["onnxruntime"] == shifts["reference"] == right
assert shifts["OpenVINO"] == [0xF, 0xF, 0x1]
EOF
