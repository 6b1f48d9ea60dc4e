#!/usr/bin/env bash
# Guess: Add, Sub and Mul of 8-bit integers wrap round, as in numpy and C, and BitShift drops the bits that leave the
# type; a graph that unpacks 4-bit weights of a byte by << 4 and >> 4 works everywhere. What happens: OpenVINO 2026.4.1's
# CPU saturates all of them (250 + 10 = 255, 0 - 10 = 0, 100 * 3 = 127, 0xAB << 4 = 0xFF), while 32-bit sums wrap there
# too; a Cast of 200 to int8 wraps. onnxruntime 1.32.0 and onnx's reference wrap. The low nibble of every byte that is
# unpacked by shifts comes out as 15; a mask (BitwiseAnd) is right in all three. Hurt: graphs that carry packed weights
# and unpack them by arithmetic, as exporters below opset 21 (without int4) do; checksums and hashes of token ids.
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
onnxruntime.set_default_logger_severity(3)
ROWS = (  # nodes, type, a, b, what wraps round, what saturates
    ("y = Add(a, b)", "uint8", 250, 10, 4, 255),
    ("y = Sub(a, b)", "uint8", 0, 10, 246, 0),
    ("y = Mul(a, b)", "int8", 100, 3, 44, 127),
    ('y = BitShift<direction = "LEFT">(a, b)', "uint8", 0xAB, 4, 0xB0, 0xFF),
    ('c = BitShift<direction = "LEFT">(a, b) y = BitShift<direction = "RIGHT">(c, b)', "uint8", 0xAB, 4, 0xB, 0xF),
    ("y = BitwiseAnd(a, b)", "uint8", 0xAB, 15, 0xB, 0xB),
    ("y = Add(a, b)", "int32", 2**31 - 1, 1, -(2**31), -(2**31)),
)
for nodes, kind, a, b, wrapped, saturated in ROWS:
    model = parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 18]>
    g ({kind}[1] a, {kind}[1] b) => ({kind}[1] y) {{ {nodes} }}""")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    feeds = {"a": np.array([a], kind), "b": np.array([b], kind)}
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model("model.onnx", "CPU")
    found = session.run(None, feeds)[0][0], ReferenceEvaluator(model).run(None, feeds)[0][0], compiled(feeds)[0][0]
    print(nodes, kind, a, b, "-> onnxruntime, reference, OpenVINO:", *map(int, found))
    assert [int(value) for value in found] == [wrapped, wrapped, saturated]
EOF
