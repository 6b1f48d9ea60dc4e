"""Running graphs on onnxruntime: sessions, verification, and the sample decoders."""
