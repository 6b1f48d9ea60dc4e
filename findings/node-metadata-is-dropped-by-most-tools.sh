#!/usr/bin/env bash
# Guess: metadata_props of nodes and graphs (ONNX IR version 10; exporters write source names, layer annotations and
# partition hints there) go through a tool that changes nothing of the node. What happens: onnxslim 0.1.98, onnxsim
# 0.8.1, onnxoptimizer 0.4.2 and onnx-graphsurgeon 0.6.1 all write them empty and say nothing. onnx_ir 1.1.0 keeps them,
# and so does onnxruntime 1.32.0 in a graph that it saves unoptimized. Hurt: partition hints and layer names that a
# later compiler reads from node metadata; provenance written by passes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2 numpy==2.4.6 onnxruntime==1.32.0 onnxslim==0.1.98 onnxsim==0.8.1 onnxoptimizer==0.4.2 onnx-graphsurgeon==0.6.1 onnx-ir==1.1.0
venv/bin/python - <<'EOF'
import warnings

warnings.filterwarnings("ignore")
import onnx
import onnx_graphsurgeon
import onnx_ir
import onnxoptimizer
import onnxruntime
import onnxsim
import onnxslim
from onnx import parser

onnxruntime.set_default_logger_severity(4)


def model():
    made = parser.parse_model('<ir_version: 10, opset_import: ["" : 21]> g (float[2] a) => (float[2] y) { t = Softmax(a) y = Erf(t) }')
    for node in made.graph.node:
        node.metadata_props.add(key="layer_ann", value="decoder.0")
    made.graph.metadata_props.add(key="source", value="exporter")
    onnx.checker.check_model(made, full_check=True)
    return made


def by_runtime(made):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = "saved.onnx"
    onnxruntime.InferenceSession(made.SerializeToString(), options)
    return onnx.load("saved.onnx")


tools = {
    "onnx_ir": lambda m: onnx_ir.to_proto(onnx_ir.from_proto(m)),
    "onnxslim": onnxslim.slim,
    "onnxsim": lambda m: onnxsim.simplify(m)[0],
    "onnxoptimizer": lambda m: onnxoptimizer.optimize(m, ["eliminate_nop_cast"]),
    "graphsurgeon": lambda m: onnx_graphsurgeon.export_onnx(onnx_graphsurgeon.import_onnx(m)),
    "onnxruntime": by_runtime,
}
kept = {}
for name, tool in tools.items():
    after = tool(model())
    assert [node.op_type for node in after.graph.node] == ["Softmax", "Erf"], name
    kept[name] = sum(len(node.metadata_props) for node in after.graph.node)
print("of 2 entries on nodes", kept, "are left; onnxslim", onnxslim.__version__, "onnxsim", onnxsim.__version__)
assert kept == {name: 2 if name in ("onnx_ir", "onnxruntime") else 0 for name in tools}
EOF
