"""What tests of quantized graphs share: calibrated programs, logits step by step, and how far two are apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.quantization.carried import put_table
from onnx_llm_passes.passes.insert_qdq import InsertQdq
from onnx_llm_passes.passes.tie_states import TieStates
from onnx_llm_passes.runtime.calibrate.calibrate import Plan, calibrate
from onnx_llm_passes.runtime.calibrate.feed import Feeder
from onnx_llm_passes.runtime.samples.blocks import Tiny

FOUR = Tiny(layers=4, hidden=64, heads=4, kv_heads=2, head=16, ffn=96)


RANDOM = np.random.default_rng(3)


TEXTS = [RANDOM.integers(0, 128, 48) for _ in range(3)]


HELD_OUT = RANDOM.integers(0, 128, 48)


IDIOMS = ["append", "append other axes", "append three dims", "append dynamo", "scatter", "scatter elements"]


def calibrated(model: ir.Model, chunk: int = 16) -> Program:
    program = Program(graphs={"model": model})
    put_table(program, calibrate(program, TEXTS, Plan(chunk=chunk)))
    return program


def logits(model: ir.Model, tokens: np.ndarray, chunk: int = 1) -> np.ndarray:
    feeder = Feeder.of(model, chunk, len(tokens))
    feeder.host.open()
    states = {state.output.name for state in feeder.states}
    found = [next(array for name, array in results.items() if name not in states) for _, results in feeder.feed(tokens)]
    return np.concatenate(found, axis=1)[0].astype(np.float64)


def sqnr(exact: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10((exact**2).sum() / ((exact - other) ** 2).sum()))


def divergence(exact: np.ndarray, other: np.ndarray) -> float:
    p, q = (x - x.max(-1, keepdims=True) for x in (exact, other))
    p, q = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (p, q))
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def quantize(program: Program, **options: object) -> Program:
    TieStates().run(program)
    InsertQdq(**options).run(program)
    return program


def saved(program: Program, folder: Path) -> Path:
    program.save(folder)
    return folder
