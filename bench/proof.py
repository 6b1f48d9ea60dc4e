"""The proof's jobs: ``check`` of eight specializations as a process, and bind with folding timed by itself.

``python -m bench.proof [--layers 80] [--rounds 5]`` prints how bind compares with onnxruntime's basic level, in
one process; ``bench/proof.py check MODEL`` writes eight specializations beside the model and checks them.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

LENGTHS = (128, 1, 2, 3, 4, 5, 6, 9)  # a prefill, then decodes of K + 1 tokens
CONTEXT = 4096


def sizes(length: int) -> dict[str, int]:
    """The sizes of the benchmark graphs' symbols; a prefill starts from nothing."""
    past = 0 if length == LENGTHS[0] else CONTEXT - length
    return {"batch_size": 1, "sequence_length": length, "past_sequence_length": past}


def write_manifest(path: Path) -> Path:
    """Eight specializations in named form."""
    names = ["Prefill", *(f"Decode_{number}" for number in range(len(LENGTHS) - 1))]
    entries = [
        {"name": name, "symbols": {symbol: str(size) for symbol, size in sizes(length).items()}}
        for name, length in zip(names, LENGTHS, strict=True)
    ]
    path.write_text(json.dumps({"specializations": entries}))
    return path


def check(model: str) -> None:
    """Runs the command on the model and its eight specializations."""
    from onnx_llm_passes.cli.app import run
    from onnx_llm_passes.cli.ending import leave

    leave(run(["check", model, str(write_manifest(Path(model).with_name("eight.json")))]))


def bind_seconds(model: Path, binding: Mapping[str, int]) -> float:
    """Bind with folding, the graph loaded before the clock starts."""
    from onnx_llm_passes.ir.core.gc_off import collector_off
    from onnx_llm_passes.ir.core.specialization import Specialization, SpecRole
    from onnx_llm_passes.ir.program.program import Program
    from onnx_llm_passes.passes.bind import Bind

    with collector_off():
        program = Program.load(model)
        program.specializations = [Specialization(name="Decode", role=SpecRole.DECODE, binding=dict(binding))]
        start = time.perf_counter()
        Bind(spec="Decode").run(program)
        return time.perf_counter() - start


def runtime_seconds(model: Path, binding: Mapping[str, int]) -> float:
    """A session at onnxruntime's basic level with the same sizes."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    for symbol, size in binding.items():
        options.add_free_dimension_override_by_name(symbol, size)
    start = time.perf_counter()
    ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return time.perf_counter() - start


def compare(style: str, layers: int, rounds: int) -> None:
    """Prints the seconds of both, and their ratio round by round."""
    from .graphs import Style, Weights, write

    with tempfile.TemporaryDirectory() as folder:
        model = write(Path(folder), Style(style), layers, Weights.RANDOM)
        pairs: list[tuple[float, float]] = []
        for _ in range(rounds):
            pairs.append((bind_seconds(model, sizes(5)), runtime_seconds(model, sizes(5))))
            gc.collect()
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = [a / b for a, b in pairs]
    print(f"{layers} layers, style {style}: bind {ours:.2f} s, onnxruntime basic level {theirs:.2f} s, "
          f"ratio {statistics.median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}], wanted ≤ 1.5")  # fmt: skip


def main() -> None:
    """Compares bind on both styles of graph."""
    parser = argparse.ArgumentParser(description="bind against onnxruntime's basic level")
    parser.add_argument("--layers", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    for style in ("annotated", "constants"):
        compare(style, given.layers, given.rounds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["check"]:
        check(sys.argv[2])
    else:
        main()
