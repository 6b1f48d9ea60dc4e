"""``python -m onnx_llm_passes.bench.predict``: texts a second of predict and of a plain loop, alternating in one run.

The plain loop is what fastembed and sentence-transformers do around onnxruntime: texts sorted by length, batches of 32,
padded to the longest of each, hidden rows handed out and pooled in numpy; and once in the order given.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ...ir.program.program import Program
from ...passes.manager import PassManager
from ...passes.pipeline import parse_pipeline
from ...runtime.predict.predict import Predictor
from ...runtime.predict.texts import Item
from ...runtime.predict.tokens import Encoder
from .model import encoder_model, texts_of, tokenizer_file

TEXTS, ROUNDS, BATCH, THREADS = 2000, 3, 32, 2


def main() -> None:
    """Prints medians with their least and largest."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = tokenizer_file(Path(folder))
        texts = texts_of(TEXTS)
        program = PassManager(parse_pipeline("pool{kind=mean}")).run(Program({"model": encoder_model()}))
        predictor, encoder = Predictor(program, threads=THREADS), Encoder(tokenizer)
        items = [Item(text) for text in texts]
        ways: dict[str, Callable[[], np.ndarray]] = {
            "predict": lambda: predictor.texts(items, encoder).values,
            "sorted, batches of 32": plain_loop(encoder_model(), tokenizer, texts, ordered=True),
            "in order, batches of 32": plain_loop(encoder_model(), tokenizer, texts, ordered=False),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        vectors: dict[str, np.ndarray] = {}
        for _ in range(ROUNDS):
            for name, run in ways.items():
                began = time.perf_counter()
                vectors[name] = run()
                rates[name].append(TEXTS / (time.perf_counter() - began))
        for name, found in rates.items():
            apart = np.abs(vectors[name] - vectors["predict"]).max()
            ratio = statistics.median(rates["predict"]) / statistics.median(found)
            print(
                f"{name}: {statistics.median(found):.0f} texts/s ({min(found):.0f}-{max(found):.0f}), "
                f"predict is {ratio:.2f} times as fast, vectors {apart:.1e} apart"
            )


def plain_loop(model: ir.Model, tokenizer: Path, texts: list[str], *, ordered: bool) -> Callable[[], np.ndarray]:
    """Hidden rows out of onnxruntime with all its optimizations, mean and norm in numpy."""
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    loaded = Tokenizer.from_file(str(tokenizer))
    loaded.enable_padding()

    def run() -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda at: -len(texts[at])) if ordered else list(range(len(texts)))
        vectors: list[np.ndarray] = []
        for start in range(0, len(order), BATCH):
            found = loaded.encode_batch([texts[at] for at in order[start : start + BATCH]])
            ids, mask = (np.array([getattr(e, key) for e in found]) for key in ("ids", "attention_mask"))
            (rows,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
            summed = (rows * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
            vectors.append(summed / np.linalg.norm(summed, axis=1, keepdims=True))
        whole = np.concatenate(vectors).astype(np.float32)
        back = np.empty_like(whole)
        back[order] = whole
        return back

    return run


if __name__ == "__main__":
    main()
