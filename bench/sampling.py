"""What a draw in the graph costs of a decode step, and what leaves: ``python -m bench.sampling FOLDER``.

A decoder of the shape of a 0.5B model (24 layers, 896 wide, 151,936 words, float32, random numbers) is written into
FOLDER, 2.5 GB, and runs one token on 512 of past, with and without the tail, in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..ir.program.program import Program
from ..passes.manager import PassManager
from ..passes.pipeline import parse_pipeline
from .graphs import build, ranges
from .tracer import Size, Style, Weight

SIZE = Size(24, 896, 4864, 14, kv_heads=2, vocab=151936)
PAST, ROUNDS = 512, 15
CUT = "keep-last-logits{n=1}"
TAILS = {
    "bounds": "sample-tail{top_k=512}",
    "bounds, float32": "sample-tail{top_k=512 precise=false}",
    "bounds, penalties, bitmask": "sample-tail{top_k=512 penalties=repetition,presence,frequency bitmask=true}",
}


def write(folder: Path) -> Path:
    """The model, its weights one block of random numbers again and again."""
    folder.mkdir(parents=True, exist_ok=True)
    model, weights = build(Style.CONSTANTS, SIZE)
    block = (np.random.default_rng(0).standard_normal(1 << 20) * 0.02).astype(np.float32)
    with (folder / "weights.data").open("wb") as file:
        for weight, (offset, length) in zip(weights, ranges(weights), strict=True):
            file.seek(offset)
            _fill(file, weight, length, block)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


def _fill(file: BinaryIO, weight: Weight, length: int, block: np.ndarray) -> None:
    numbers = np.resize(block, length // 4)
    file.write((np.ones_like(numbers) if len(weight.dims) == 1 else numbers).tobytes())


def feeds(session: Any) -> dict[str, np.ndarray]:
    """One token behind a past of 512; draws at temperature 0.8 of the 50 likeliest."""
    fixed = {"batch_size": 1, "sequence_length": 1, "past_sequence_length": PAST}
    values = {"temperatures": 0.8, "top_ks": 50, "top_ps": 0.95, "repetition_penalties": 1.1, "token_bitmasks": -1}
    found: dict[str, np.ndarray] = {}
    for value in session.get_inputs():
        shape = [dim if isinstance(dim, int) else fixed.get(dim, PAST + 1) for dim in value.shape]
        kind = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}.get(
            value.type, np.float32
        )
        name = str(value.name)
        found[name] = np.full(shape, values.get(name, 1 if "mask" in name else PAST if "position" in name else 0), kind)
    return found


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    import onnxruntime

    source = folder / "source" / "model.onnx"
    path = source if source.exists() else write(source.parent)
    sessions: dict[str, tuple[Any, dict[str, np.ndarray]]] = {}
    for name, pipeline in {"logits": CUT, **{name: f"{CUT},{tail}" for name, tail in TAILS.items()}}.items():
        out = folder / name.replace(", ", "-")
        program = PassManager(parse_pipeline(pipeline)).run(Program.load(path))
        program.save(folder, force=True)
        (folder / "model.onnx").replace(out.with_suffix(".onnx"))
        session: Any = onnxruntime.InferenceSession(str(out.with_suffix(".onnx")), providers=["CPUExecutionProvider"])
        sessions[name] = (session, feeds(session))
    times = _timed(sessions)
    plain = statistics.median(times["logits"])
    for name, seconds in times.items():
        leaves = SIZE.vocab * 4 if name == "logits" else 8
        share = (statistics.median(seconds) - plain) / plain
        print(f"{name:30} {1e3 * statistics.median(seconds):8.1f} ms  {share:+7.1%}  {leaves} bytes a token leave")


def _timed(sessions: dict[str, tuple[Any, dict[str, np.ndarray]]]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for at in range(ROUNDS + 2):
        for name, (session, given) in sessions.items():
            start = time.perf_counter()
            session.run(None, given)
            times[name] += [time.perf_counter() - start] if at > 1 else []
    return times


if __name__ == "__main__":
    main()
