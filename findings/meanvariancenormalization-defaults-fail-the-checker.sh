#!/usr/bin/env bash
# Guess: an attribute with a default may be left out, and the full checker takes what the operator's text allows. What
# happens in onnx 1.23.2: MeanVarianceNormalization is a function whose body reads the attribute axes; left out (default
# 0, 2, 3), check_model(full_check=True) refuses the model, with a message about a Constant that the model does not have.
# With the very default written, the same model passes; check_model alone passes both, and onnxruntime 1.32.0 runs both
# to the same numbers. Hurt: tools that drop attributes equal to their default to make files smaller or comparable, and
# gates that check in full before they hand a model on.
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


def model_with(axes):
    text = "g (float[1,2,2,2] a) => (float[1,2,2,2] y) { y = MeanVarianceNormalization" + axes + " (a) }"
    return onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 21]> ' + text)


def verdict(model):
    onnx.checker.check_model(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.shape_inference.InferenceError as error:
        return str(error)
    return "passes"


def run(model):
    onnx.save(model, "model.onnx")
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"a": np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)})[0]


left_out, written = model_with(""), model_with("<axes = [0, 2, 3]>")
print("onnx", onnx.__version__, "| axes left out:", verdict(left_out)[:200], "| written:", verdict(written))
assert "Constant" in verdict(left_out)
assert verdict(written) == "passes"
assert np.array_equal(run(left_out), run(written))
EOF
