#!/usr/bin/env bash
# Guess: a sparse_initializer (part of ONNX since IR version 5: an initializer "stored in sparse format") is a dense
# value to the nodes that read it, and libraries carry it or refuse it. What happens: onnxruntime 1.32.0 runs it as a
# dense value; onnx 1.23.2's checker passes it and refuses the same file with full_check, where it is a sparse_tensor
# that Add does not take; onnx_ir 1.1.0 writes a graph in which the node still reads the name and nothing gives it (it
# logs a line, raises nothing), onnx-graphsurgeon 0.6.1 keeps it; onnx 1.23.2's ReferenceEvaluator ends with ValueError
# over a field that the message has not. Hurt: pruned weights that a tool stored sparsely: gone after the first pass,
# and the error comes from whoever loads the file next.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2 numpy==2.4.6 onnxruntime==1.32.0 onnx-ir==1.1.0 onnx-graphsurgeon==0.6.1
venv/bin/python - <<'EOF'
import numpy as np
import onnx
import onnx.shape_inference
import onnx_graphsurgeon
import onnx_ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

print("onnx_ir", onnx_ir.__version__, "graphsurgeon", onnx_graphsurgeon.__version__, "onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
values, indices = numpy_helper.from_array(np.array([3], np.float32), "w"), numpy_helper.from_array(np.array([1]), "w_indices")
graph = helper.make_graph(
    [helper.make_node("Add", ["a", "w"], ["y"])],
    "g",
    [helper.make_tensor_value_info("a", TensorProto.FLOAT, [2])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    sparse_initializer=[helper.make_sparse_tensor(values, indices, [2])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
onnx.checker.check_model(model)
try:
    onnx.checker.check_model(model, full_check=True)
    raise SystemExit("the full checker takes it")
except onnx.shape_inference.InferenceError as error:
    print("full check:", error)
print("onnxruntime:", onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"a": np.zeros(2, np.float32)})[0])
for name, through in {
    "onnx_ir": lambda m: onnx_ir.to_proto(onnx_ir.from_proto(m)),
    "graphsurgeon": lambda m: onnx_graphsurgeon.export_onnx(onnx_graphsurgeon.import_onnx(m)),
}.items():
    after = through(model).graph
    given = {i.name for i in after.input} | {i.name for i in after.initializer} | {s.values.name for s in after.sparse_initializer}
    print(name, "writes a node that reads", list(after.node[0].input), "where there is", sorted(given))
    assert "w" in after.node[0].input and ("w" in given) == (name == "graphsurgeon")
try:
    ReferenceEvaluator(model)
    raise SystemExit("the reference takes it")
except ValueError as error:
    print("reference:", error)
EOF
