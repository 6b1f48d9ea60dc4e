"""Runs texts through predict in a process of its own, as ``peers.py`` runs them through a library."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from ...ir.program.program import Program
from ...runtime.predict.predict import Predictor
from ...runtime.predict.texts import Item, read_texts
from ...runtime.predict.tokens import Encoder
from .peers import WARM


def main() -> None:
    """Encodes ``texts.txt`` of the folder by the program in ``pooled`` beside it."""
    folder, out, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    items: list[Item] = read_texts(folder / "texts.txt")
    predictor = Predictor(Program.load(folder / "pooled"), threads=threads)
    encoder = Encoder(folder / "tokenizer.json")
    predictor.texts(items[:WARM], encoder)
    began, cpu = time.perf_counter(), time.process_time()
    found = predictor.texts(items, encoder)
    rate, cpu = len(items) / (time.perf_counter() - began), time.process_time() - cpu
    np.save(out, found.values)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rate": rate, "cpu": cpu, "peak": peak}))


if __name__ == "__main__":
    main()
