"""Sessions of onnxruntime are opened here, on copies of graphs that it can run."""
