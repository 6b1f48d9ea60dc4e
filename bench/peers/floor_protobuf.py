"""The floor of any tool in Python: parse the file with protobuf, serialize it, write it. ``IN OUT``."""

import sys
from pathlib import Path

import onnx

source, target = sys.argv[1:3]
model = onnx.load(source, load_external_data=False)
Path(target).write_bytes(model.SerializeToString())
