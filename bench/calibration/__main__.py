"""``python -m bench.calibration``: chunked prefill against the loop of single steps, on one graph, on one machine.

Published beside it: torch-level calibration of 17 models, 20101 s before and 4573 s after (4.4 times in sum, 1.3 to
7.8 times a model), where "seconds" hold export and weight quantization as well.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from onnx_llm_passes.ir.core.gc_off import collector_off
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.quantization import EncodingTable, print_encodings
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.calibrate.calibrate import Plan, Worker, calibrate
from onnx_llm_passes.runtime.calibrate.feed import Feeder
from onnx_llm_passes.runtime.samples.blocks import Tiny
from onnx_llm_passes.runtime.samples.samples import append_decoder

SHAPES = {
    "tiny": Tiny(layers=4, hidden=256, heads=4, kv_heads=2, head=64, ffn=688, vocab=1024),
    "135m": Tiny(layers=30, hidden=576, heads=9, kv_heads=3, head=64, ffn=1536, vocab=49152),
}
WARM = 2  # texts before the clock runs
HERE = Path(__file__).parent
PUBLISHED = "published (other work, seconds with export): 4.4 times in sum, 1.3 to 7.8 times a model"


def main() -> None:
    """Times the arms, checks that they agree, prints a table and writes it beside a picture."""
    parser = argparse.ArgumentParser(prog="python -m bench.calibration", description="chunks against single steps")
    parser.add_argument("--shape", choices=SHAPES, default="135m")
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 128, 256])
    parser.add_argument("--chunk", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE.parent / "out" / "calibration")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:  # as a user has it: weights lie in a file, and are referred to
        Program(graphs={"model": append_decoder(SHAPES[args.shape])}).save(folder, force=True)
        program = Program.load(folder)
        rows = [measure(program, length, args.chunk, args.repeats) for length in args.lengths]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{args.shape}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    show(args.shape, rows)
    picture(args.out / f"{args.shape}.svg", rows)


def measure(program: Program, length: int, chunk: int, repeats: int) -> dict[str, float]:
    """One length: medians of both arms, the session's own time, and how far the bounds lie apart."""
    tokens = np.random.default_rng(length).integers(0, 1000, length)
    found = {f"{arm}_seconds": timed(program, tokens, size, repeats) for arm, size in (("chunk", chunk), ("step", 1))}
    before = time.perf_counter()
    tables = [calibrate(program, [tokens], Plan(chunk=size)) for size in (chunk, 1)]
    worst = apart(*tables)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    session = time_to_open(program, length)
    finish = time_to_finish(program, tables[0])
    ratio = found["step_seconds"] / found["chunk_seconds"]
    whole = (found["step_seconds"] + session) / (found["chunk_seconds"] + session)
    end = (found["step_seconds"] + session + finish) / (found["chunk_seconds"] + session + finish)
    facts = {"tokens": length, "tensors": len(tables[0].ranges), **found, "session_seconds": session}
    return facts | {
        "ratio": ratio,
        "ratio_with_session": whole,
        "finish_seconds": finish,
        "ratio_end_to_end": end,
        "worst_bound": worst,
        "peak_mb": peak,
        "check_seconds": time.perf_counter() - before,
    }


def timed(program: Program, tokens: np.ndarray, chunk: int, repeats: int) -> float:
    """The median seconds of the runs alone, after the texts that a runtime needs to get its memory."""
    (model,) = program.graphs.values()
    worker = Worker(Feeder.of(model, chunk, len(tokens)), Plan(chunk=chunk), None, 1)
    for _ in range(WARM):
        worker.look(0, tokens)
    seconds: list[float] = []
    for _ in range(repeats):
        before = time.perf_counter()
        worker.look(0, tokens)
        seconds.append(time.perf_counter() - before)
    return statistics.median(seconds)


def time_to_open(program: Program, length: int) -> float:
    """The seconds that finding states, appending reductions and opening the session take."""
    (model,) = program.graphs.values()
    before = time.perf_counter()
    Worker(Feeder.of(model, 1, length), Plan(), None, 1)
    return time.perf_counter() - before


def time_to_finish(program: Program, table: EncodingTable) -> float:
    """The seconds from ranges to files: written and read, states tied, weights quantized, pairs put in, all saved."""
    copy = Program(graphs={name: model.clone() for name, model in program.graphs.items()})
    with tempfile.TemporaryDirectory() as folder:
        before = time.perf_counter()
        file = Path(folder) / "encodings.json"
        file.write_text(print_encodings(table), encoding="utf-8")
        with collector_off():  # as the command runs
            PassManager(parse_pipeline(f'quantize{{file="{file}"}}')).run(copy)
            copy.save(Path(folder) / "out")
        return time.perf_counter() - before


def apart(first: EncodingTable, second: EncodingTable) -> float:
    """The largest difference of two bounds over the tensor's span, 0 included as every grid includes it."""
    worst = 0.0
    for name, seen in first.ranges.items():
        other = second.ranges[name]
        if seen.usable and other.usable:
            low, high = min(seen.low, 0.0), max(seen.high, 0.0)
            gaps = abs(low - min(other.low, 0.0)), abs(high - max(other.high, 0.0))
            worst = max(worst, max(gaps) / (high - low))
    return worst


def show(shape: str, rows: list[dict[str, float]]) -> None:
    """The table."""
    print(f"{shape}: {rows[0]['tensors']:.0f} tensors watched, one thread, medians")
    print(" tokens  chunk s   step s   ratio  with session  end to end  worst bound")
    for row in rows:
        print(
            f"{row['tokens']:7.0f}{row['chunk_seconds']:9.3f}{row['step_seconds']:9.3f}{row['ratio']:8.1f}"
            f"{row['ratio_with_session']:14.1f}{row['ratio_end_to_end']:12.1f}{row['worst_bound']:13.1e}"
        )
    print(PUBLISHED)


def picture(path: Path, rows: list[dict[str, float]]) -> None:
    """The ratio over the number of tokens; nothing where matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("matplotlib is not installed: no picture")
        return
    mpl.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    lengths = [row["tokens"] for row in rows]
    axes.plot(lengths, [row["ratio"] for row in rows], marker="o", label="runs alone")
    axes.plot(lengths, [row["ratio_with_session"] for row in rows], marker="s", label="with opening the session")
    axes.plot(
        lengths, [row["ratio_end_to_end"] for row in rows], marker="^", label="until the quantized model is saved"
    )
    axes.axhspan(1.3, 7.8, alpha=0.15, label="published, whole jobs")
    axes.set_xlabel("tokens")
    axes.set_ylabel("single steps over chunks")
    axes.set_xscale("log", base=2)
    axes.legend()
    figure.savefig(path)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
