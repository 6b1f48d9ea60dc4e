#!/usr/bin/env bash
# Guess: Cast from float to an integer type truncates, for every width; what a graph spells by Cast is the same on every
# runtime inside the type's range and wraps or saturates beyond it. What happens: all three truncate for int8 (-7.5
# becomes -7). For int4 onnxruntime 1.32.0 and OpenVINO 2026.4.1's CPU round (-8), onnx 1.23.2's ReferenceEvaluator
# truncates (-7). Beyond the range onnxruntime and the reference wrap (9 becomes -7), and OpenVINO keeps 9 behind a Cast
# to int4 and back: the range is not applied at all. Hurt: whoever narrows a cache or a weight from int8 to int4 by
# changing the Cast's type: every half is another code; whoever looks at 4-bit clipping on OpenVINO.
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

print("openvino", openvino.__version__, "onnxruntime", onnxruntime.__version__)


def both(text, feeds):
    """The first output of one graph on onnxruntime and on OpenVINO's CPU in float32."""
    model = parser.parse_model('<ir_version: 10, opset_import: ["" : 21]> ' + text)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model("model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return session.run(None, feeds)[0], np.asarray(next(iter(compiled(feeds).values())))

from onnx.reference import ReferenceEvaluator

values = np.array([1.75, -7.5, 6.75, 9], np.float32)


def there_and_back(kind):
    text = f"g (float[4] a) => (float[4] y) {{ q = Cast<to = {kind}>(a) y = Cast<to = 1>(q) }}"
    sides = [side.tolist() for side in both(text, {"a": values})]
    return [*sides, ReferenceEvaluator("model.onnx").run(None, {"a": values})[0].tolist()]


four, eight = there_and_back(22), there_and_back(3)
print("of", values.tolist(), "(onnxruntime, OpenVINO, reference): by int4", four, "by int8", eight)
assert eight[0] == eight[1] == eight[2] == [1, -7, 6, 9]
assert four[0] == [2, -8, 7, -7]
assert four[1] == [2, -8, 7, 9]
assert four[2] == [1, -7, 6, -7]
EOF
