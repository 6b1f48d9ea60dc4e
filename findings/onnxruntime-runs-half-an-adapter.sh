#!/usr/bin/env bash
# Guess: an adapter file (.onnx_adapter) that lacks some of the graph's adapter inputs is refused, as one with a name
# too many is. What happens: onnxruntime 1.32.0 refuses unknown names ("Invalid input name") and takes missing ones from
# the graph's initializers without a word: with A given and B left at its zeros the run is exactly the base model. Hurt:
# an adapter trained on other targets, or renamed by a pass on one side only: it loads, it runs, and it does nothing.
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
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import AdapterFormat, LoraAdapter, OrtValue, RunOptions

print("onnxruntime", onnxruntime.__version__)
info = helper.make_tensor_value_info
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "lora_A"], ["xa"]), helper.make_node("MatMul", ["xa", "lora_B"], ["y"])],
    "g",
    [info("x", TensorProto.FLOAT, [1, 2]), info("lora_A", TensorProto.FLOAT, [2, "r"]), info("lora_B", TensorProto.FLOAT, ["r", 2])],
    [info("y", TensorProto.FLOAT, [1, 2])],
    initializer=[numpy_helper.from_array(np.zeros((2, 1), np.float32), "lora_A"), numpy_helper.from_array(np.zeros((1, 2), np.float32), "lora_B")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
onnx.checker.check_model(model, full_check=True)
session = onnxruntime.InferenceSession(model.SerializeToString())


def run(**tensors):
    written = AdapterFormat()
    written.set_adapter_version(1)
    written.set_model_version(1)
    written.set_parameters({name: OrtValue.ortvalue_from_numpy(array) for name, array in tensors.items()})
    written.export_adapter("a.onnx_adapter")
    adapter, options = LoraAdapter(), RunOptions()
    adapter.Load("a.onnx_adapter")
    options.add_active_adapter(adapter)
    return session.run(None, {"x": np.ones((1, 2), np.float32)}, options)[0].tolist()


a, b = np.ones((2, 1), np.float32), np.ones((1, 2), np.float32)
print("A and B:", run(lora_A=a, lora_B=b), "A alone:", run(lora_A=a))
assert run(lora_A=a, lora_B=b) == [[2, 2]] and run(lora_A=a) == [[0, 0]]
try:
    run(lora_A=a, lora_B=b, nosuch=a)
    raise SystemExit("an unknown name is taken")
except Exception as error:
    print("a name too many:", str(error)[-40:])
EOF
