#!/usr/bin/env bash
# Guess: onnx_ir.from_proto reads a ModelProto, clone() makes a graph of its own, and to_proto only reads: the ModelProto
# that all began with keeps its bytes. What happens in onnx-ir 1.1.0: clones share tensors, and a tensor read from a proto
# is a view of it. When LiftConstantsToInitializersPass made an initializer of a Constant in the clone, to_proto(clone)
# gives the tensor the initializer's name, through the view: the Constant's attribute in the first ModelProto, which no
# pass was run on, has a name now. The pass itself changes nothing, serializing does. Hurt: whoever compares a model with
# itself after "only" writing a variant, keys a cache by the digest of the proto, or writes variants from threads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2 onnx-ir==1.1.0 numpy==2.4.6
venv/bin/python - <<'EOF'
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

proto = onnx.parser.parse_model(
    '<ir_version: 10, opset_import: ["" : 21]> g (float[2] a) => (float[2] y) '
    "{ k = Constant<value = float[2] {1.0, 2.0}>() y = Add(a, k) }"
)
onnx.checker.check_model(proto, full_check=True)


def names():
    return [attribute.t.name for node in proto.graph.node for attribute in node.attribute]


clone = ir.from_proto(proto).clone()
print("onnx-ir", ir.__version__, "name of the constant's tensor at first:", names())
assert names() == [""]
common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(clone)
print("after a pass over a clone:", names())
assert names() == [""]
ir.to_proto(clone)
print("after the clone was serialized:", names())
assert names() == ["k"]
EOF
