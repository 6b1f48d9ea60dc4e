#!/usr/bin/env bash
# Guess: onnx.version_converter converts the bodies of model-local functions too, leaves them as they are, or refuses.
# What happens: onnx 1.23.2 returns a model in which every call of a function is still there and no function is; it
# raises nothing. The result cannot be loaded. Hurt: whoever raises the opset of exports that keep layers or cache
# writes as functions (QEfficient, torch with functions kept).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2 numpy==2.4.6 onnxruntime==1.32.0
venv/bin/python - <<'EOF'
import onnx
import onnx.version_converter
import onnxruntime
from onnx import parser

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
g (float[2] a) => (float[2] y) { y = local.Twice(a) }
<domain: "local", opset_import: ["" : 17]> Twice (x) => (z) { z = Add(x, x) }""")
onnx.checker.check_model(model, full_check=True)
converted = onnx.version_converter.convert_version(model, 18)
print("before:", len(model.functions), "function; after:", len(converted.functions), "calls:", [n.op_type for n in converted.graph.node])
assert len(model.functions) == 1 and len(converted.functions) == 0
assert [node.op_type for node in converted.graph.node] == ["Twice"]
onnxruntime.InferenceSession(model.SerializeToString())
try:
    onnxruntime.InferenceSession(converted.SerializeToString())
    raise SystemExit("the converted model loads")
except Exception as error:
    print("onnxruntime:", str(error)[:120])
EOF
