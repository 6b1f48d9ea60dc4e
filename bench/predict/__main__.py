"""``python -m onnx_llm_passes.bench.predict [--python P]`` runs texts through predict and through its peers.

Texts a second and peak memory of fastembed, sentence-transformers' ONNX backend and one bare session, each in a process
of its own, alternating in one run, on one model folder that is made here; ``P`` is a Python that has the two packages
and the same onnxruntime. Without it only the bare session is run. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from . import peers
from .model import write_folder

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "true",
}


def main() -> None:
    """Prints medians with their least and largest."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", help="a Python with fastembed and sentence-transformers[onnx]")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_folder(folder, given.texts)
        script, threads = peers.__file__ or "", str(given.threads)
        ours = [sys.executable, "-m", f"{__package__}.ours", place, f"{place}/predict.npy", threads]
        ways = {"predict": ours} | {
            way: [given.python or sys.executable, script, way, place, f"{place}/{way}.npy", threads]
            for way in (peers.WAYS if given.python else ["one session"])
        }
        found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(given.rounds):
            for way, command in ways.items():
                found[way].append(_run(command))
        for way in ways:
            _tell(way, found, np.load(folder / f"{way}.npy"), np.load(folder / "predict.npy"))


def _run(command: list[str]) -> dict[str, float]:
    done = subprocess.run(command, env={**os.environ, **OFFLINE}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _tell(way: str, found: Mapping[str, list[dict[str, float]]], theirs: np.ndarray, ours: np.ndarray) -> None:
    rates, times, peaks = ([run[key] for run in found[way]] for key in ("rate", "cpu", "peak"))
    mine = {key: statistics.median(run[key] for run in found["predict"]) for key in ("rate", "cpu", "peak")}
    print(
        f"{way}: {statistics.median(rates):.0f} texts/s ({min(rates):.0f}-{max(rates):.0f}), predict "
        f"{mine['rate'] / statistics.median(rates):.2f} times as many; {statistics.median(times):.1f} CPU seconds "
        f"({min(times):.1f}-{max(times):.1f}), predict {mine['cpu'] / statistics.median(times):.2f} of them; "
        f"{statistics.median(peaks):.0f} MB at most, predict {mine['peak'] / statistics.median(peaks):.2f} of it; "
        f"vectors {np.abs(theirs - ours).max():.1e} apart",
        flush=True,
    )


if __name__ == "__main__":
    main()
