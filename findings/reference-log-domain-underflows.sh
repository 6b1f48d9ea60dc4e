#!/usr/bin/env bash
# Guess: LogSoftmax and ReduceLogSumExp exist so that one need not take the log of something that underflowed; onnx's
# ReferenceEvaluator, the oracle for both, computes them that way. What happens in onnx 1.23.2: LogSoftmax is the
# logarithm of a softmax, so everything about 104 below the maximum is -inf (float32) where onnxruntime 1.32.0 gives the
# number; ReduceLogSumExp of a row that is -inf throughout (a masked row) is NaN there and -inf in onnxruntime. Hurt:
# perplexities and KL divergences whose expected values come from the reference: infinite for one unlikely token, NaN
# for one masked row, and the right implementation is what fails the test.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check onnx==1.23.2 numpy==2.4.6 onnxruntime==1.32.0
venv/bin/python -W ignore - <<'EOF'
import numpy as np
import onnx
import onnxruntime
from onnx import parser
from onnx.reference import ReferenceEvaluator

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)


def both(node, row):
    model = parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 18]>
    g (float[1, 3] a) => (float[M, N] y) <int64[1] axes = {{1}}> {{ {node} }}""")
    onnx.checker.check_model(model, full_check=True)
    feeds = {"a": np.array([row], np.float32)}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, feeds)[0][0].tolist(), ReferenceEvaluator(model).run(None, feeds)[0][0].tolist()
    print(node, row, "-> onnxruntime", found[0], "reference", found[1])
    return found


runtime, reference = both("y = LogSoftmax<axis = 1>(a)", [300, 180, -500])
assert np.isfinite(runtime).all()
assert np.isneginf(reference[1:]).all()
runtime, reference = both("y = ReduceLogSumExp(a, axes)", [-np.inf] * 3)
assert np.isneginf(runtime).all()
assert np.isnan(reference).all()
EOF
