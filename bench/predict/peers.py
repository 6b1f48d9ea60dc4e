"""Runs texts through one embedding library in a process of its own: ``python peers.py WAY FOLDER OUT.npy THREADS``.

It imports nothing of this package, so that a Python with fastembed or sentence-transformers can run it. Prints one JSON
object: texts a second after a first pass over some texts, CPU seconds, and the peak memory of the process in MB.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

Encode = Callable[[Sequence[str]], np.ndarray]
WARM = 40  # texts of the first pass


def fastembed(folder: Path, threads: int) -> Encode:
    """TextEmbedding of a custom model, its default batch."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model="local/encoder", pooling=PoolingType.MEAN, normalization=True, sources=ModelSource(url="http://localhost"),
        dim=384, model_file="model.onnx",
    )  # fmt: skip
    model = TextEmbedding("local/encoder", specific_model_path=str(folder), threads=threads, local_files_only=True)
    return lambda texts: np.stack(list(model.embed(list(texts))))


def sentence_transformers(folder: Path, threads: int) -> Encode:
    """SentenceTransformer with its ONNX backend, its default batch."""
    import onnxruntime
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    given = {"file_name": "model.onnx", "provider": "CPUExecutionProvider", "session_options": options}
    model = SentenceTransformer(str(folder), backend="onnx", device="cpu", model_kwargs=given)
    return lambda texts: np.asarray(model.encode(list(texts), show_progress_bar=False))


def session(folder: Path, threads: int) -> Encode:
    """One session alone, batches of 32 sorted by length, vectors pooled in numpy."""
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    loaded = onnxruntime.InferenceSession(folder / "model.onnx", options)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()

    def encode(texts: Sequence[str]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda at: -len(texts[at]))
        vectors = np.zeros((len(texts), 384), np.float32)
        for start in range(0, len(order), 32):
            part = order[start : start + 32]
            found = tokenizer.encode_batch([texts[at] for at in part])
            ids, mask = (np.array([getattr(each, key) for each in found]) for key in ("ids", "attention_mask"))
            (rows,) = loaded.run(None, {"input_ids": ids, "attention_mask": mask})
            summed = (rows * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
            vectors[part] = summed / np.linalg.norm(summed, axis=1, keepdims=True)
        return vectors

    return encode


WAYS = {"fastembed": fastembed, "sentence-transformers": sentence_transformers, "one session": session}


def main() -> None:
    """Encodes ``texts.txt`` of the folder, one text a line."""
    way, folder, out, threads = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    texts = (folder / "texts.txt").read_text(encoding="utf-8").splitlines()
    encode = WAYS[way](folder, threads)
    encode(texts[:WARM])
    began, cpu = time.perf_counter(), time.process_time()
    vectors = encode(texts)
    rate, cpu = len(texts) / (time.perf_counter() - began), time.process_time() - cpu
    np.save(out, vectors)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rate": rate, "cpu": cpu, "peak": peak}))


if __name__ == "__main__":
    main()
