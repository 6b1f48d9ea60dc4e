"""Sessions of onnxruntime, and the copies of graphs that it can run."""
