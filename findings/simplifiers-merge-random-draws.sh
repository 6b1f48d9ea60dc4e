#!/usr/bin/env bash
# Guess: common subexpressions are merged, random operators are not: two RandomNormalLike without a seed are two
# independent draws. What happens: onnxslim 0.1.98 and onnxsim 0.8.1 merge them into one, so two samples that were
# independent become the same number (onnx_ir 1.1.0's pass leaves them). Hurt: graphs that sample on the device: one
# draw for acceptance and one for the next token become one, batch rows sampled by unrolled heads agree, noise of a
# diffusion step is used twice. The graphs stay valid and no deterministic test sees it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2 numpy==2.4.6 onnxruntime==1.32.0 onnxslim==0.1.98 onnxsim==0.8.1 onnx-ir==1.1.0
venv/bin/python - <<'EOF'
import warnings

warnings.filterwarnings("ignore")
import numpy as np
import onnx
import onnx_ir
import onnx_ir.passes.common
import onnxruntime
import onnxsim
import onnxslim
from onnx import parser

print("onnxslim", onnxslim.__version__, "onnxsim", onnxsim.__version__, "onnx_ir", onnx_ir.__version__, "onnxruntime", onnxruntime.__version__)
TEXT = """<ir_version: 10, opset_import: ["" : 21]> g (float[64] a) => (float[64] y, float[64] z) {
    p = RandomNormalLike(a) q = RandomNormalLike(a) y = Neg(p) z = Neg(q) }"""


def by_ir(model):
    read = onnx_ir.from_proto(model)
    onnx_ir.passes.common.CommonSubexpressionEliminationPass()(read)
    return onnx_ir.to_proto(read)


def same(model):
    onnx.checker.check_model(model)
    y, z = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"a": np.zeros(64, np.float32)})
    return bool((y == z).all())


tools = {"original": lambda m: m, "onnx_ir": by_ir, "onnxslim": onnxslim.slim, "onnxsim": lambda m: onnxsim.simplify(m)[0]}
found = {name: same(tool(parser.parse_model(TEXT))) for name, tool in tools.items()}
print("both outputs hold the same 64 numbers:", found)
assert found == {"original": False, "onnx_ir": False, "onnxslim": True, "onnxsim": True}
EOF
