#!/usr/bin/env bash
# Guess: safetensors.numpy.save_file writes the array that it is given; where it cannot (a view that is not contiguous)
# it refuses, as its torch side does. What happens: safetensors 0.8.0 takes a transposed view and writes the memory
# under it with the view's shape: every number is there, at the wrong place, and load_file returns it without an error.
# Hurt: whoever stores x.T, a head tied to the embedding or a slice of a packed projection: of a square matrix nothing
# but the numbers tells. np.ascontiguousarray before the call is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
venv/bin/python - <<'EOF'
import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

print("safetensors", safetensors.__version__)
view = np.arange(4, dtype=np.float32).reshape(2, 2).T
save_file({"view": view, "copy": np.ascontiguousarray(view)}, "x.safetensors")
read = load_file("x.safetensors")
print("given", view.tolist(), "read", read["view"].tolist(), "from a contiguous copy", read["copy"].tolist())
assert read["copy"].tolist() == view.tolist() == [[0, 2], [1, 3]]
assert read["view"].tolist() == [[0, 1], [2, 3]]
EOF
