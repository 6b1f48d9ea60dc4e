"""Graphs are run on onnxruntime: to verify, to calibrate, to generate."""
