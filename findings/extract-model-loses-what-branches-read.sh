#!/usr/bin/env bash
# Guess: onnx.utils.extract_model takes every node that the chosen outputs need, also those that only the bodies of an
# If or Loop read from outside. What happens: onnx 1.23.2 follows the inputs of nodes, not what their bodies capture.
# The node behind the captured value is left out; with its check on the file is refused by the checker, with it off it
# is written and cannot be loaded. Hurt: cutting merged decoders (the branch with and without a past is an If that
# captures everything).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2 numpy==2.4.6 onnxruntime==1.32.0
venv/bin/python - <<'EOF'
import onnx
import onnx.utils
import onnxruntime
from onnx import TensorProto, helper

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)


def body(name):
    output = helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])
    return helper.make_graph([helper.make_node("Identity", ["inner"], [name])], name, [], [output])


nodes = [
    helper.make_node("Neg", ["a"], ["inner"]),
    helper.make_node("If", ["c"], ["y"], then_branch=body("p"), else_branch=body("q")),
]
inputs = [helper.make_tensor_value_info("c", TensorProto.BOOL, []), helper.make_tensor_value_info("a", TensorProto.FLOAT, [2])]
graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "model.onnx")
onnxruntime.InferenceSession("model.onnx")
onnx.utils.extract_model("model.onnx", "part.onnx", ["c", "a"], ["y"], check_model=False)
kept = [node.op_type for node in onnx.load("part.onnx").graph.node]
print("the whole graph, extracted by its own inputs and outputs, has", kept)
assert kept == ["If"]
try:
    onnxruntime.InferenceSession("part.onnx")
    raise SystemExit("the part loads")
except Exception as error:
    print("onnxruntime:", str(error)[-110:])
EOF
