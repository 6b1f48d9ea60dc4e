#!/usr/bin/env bash
# Guess: onnxruntime.tools.onnx_model_utils.make_dim_param_fixed, the documented way to make a graph static, makes every
# dimension that follows from the symbol static. What happens: in onnxruntime 1.32.0 it compares names as text. With
# past and seq fixed, the present's "past + seq" (how exporters name it) stays symbolic, in outputs and value infos. The
# session's own free dimension override (add_free_dimension_override_by_name) does compute it: 4. Hurt: decoders made
# static by the tool for a compiler that wants every I/O dimension as a number.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2 numpy==2.4.6 onnxruntime==1.32.0 sympy==1.14.0
venv/bin/python - <<'EOF'
import onnxruntime
from onnx import TensorProto, checker, helper
from onnxruntime.tools.onnx_model_utils import make_dim_param_fixed

print("onnxruntime", onnxruntime.__version__)
past, new = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, 2]) for name, size in (("past", "past"), ("new", "seq")))
present = helper.make_tensor_value_info("present", TensorProto.FLOAT, ["past + seq", 2])
graph = helper.make_graph([helper.make_node("Concat", ["past", "new"], ["present"], axis=0)], "g", [past, new], [present])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
checker.check_model(model, full_check=True)
options = onnxruntime.SessionOptions()
for name, size in (("past", 3), ("seq", 1)):
    options.add_free_dimension_override_by_name(name, size)
session = onnxruntime.InferenceSession(model.SerializeToString(), options)
for name, size in (("past", 3), ("seq", 1)):
    make_dim_param_fixed(model.graph, name, size)
left = model.graph.output[0].type.tensor_type.shape.dim[0]
print("the tool leaves", repr(left.dim_param), "; the session says", session.get_outputs()[0].shape)
assert left.dim_param == "past + seq" and not left.HasField("dim_value")
assert session.get_outputs()[0].shape == [4, 2]
EOF
