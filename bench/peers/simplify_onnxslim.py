"""Simplify with onnxslim, its defaults. ``IN OUT``. It reads the weights and writes them again."""

import sys

import onnxslim

onnxslim.slim(sys.argv[1], sys.argv[2])
