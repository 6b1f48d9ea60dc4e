"""Writes docs/coverage.md (`make coverage`): what `run single-shot` does to every model of a folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SPECULATIVE = "speculative{k=0,1,4 prefill=32 ctx=128}"
LONGEST = 240  # of a reason
PAGE = Path(__file__).resolve().parent / "coverage.md"
HEAD = """# Coverage

What `onnx-passes run single-shot` and `run 'speculative{k=0,1,4 prefill=32 ctx=128}'` do to models that real exporters
wrote (random weights, two to six layers).
Written by `make coverage` from the folder that `ONNX_PASSES_MODELS` names; never edited by hand.

*States*: how many of each layout and kind, found by structure. *Results*: verified, or refused with the reason; graphs
that the machine's onnxruntime cannot run are checked by structure. *Nodes* of the main graph: before → after, constants
counted.

"""


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One onnx-passes command in a process of its own: a runtime that crashes takes no other model with it."""
    line = [sys.executable, "-m", "onnx_llm_passes", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"})


def row(model: Path, root: Path) -> str:
    """One line of the table."""
    name = model.relative_to(root).with_suffix("").as_posix()
    single, nodes = outcome("single-shot", model)
    speculative, _ = outcome(SPECULATIVE, model)
    return f"| {name} | {states_of(model)} | {single} | {nodes} | {speculative} |"


def outcome(pipeline: str, model: Path) -> tuple[str, str]:
    """What became of one pipeline on one model, and its nodes before and after."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "out")
        done = command("run", pipeline, str(model), "-o", out)
        if done.returncode:
            return f"refused: {reason(done.stderr)}", ""
        nodes = re.search(r"(\d+) -> (\d+) nodes|(\d+) nodes", done.stdout + done.stderr)
        counts = " → ".join(n for n in nodes.groups() if n) if nodes else ""
        return verdict(command("verify", str(model), out, "--json")), counts


def states_of(model: Path) -> str:
    """``4 append key`` and the like."""
    told: dict[str, Any] = json.loads(command("inspect", str(model), "--json").stdout)
    found = Counter(
        " ".join([state["layout"], state["kind"]] + ([] if state["pairing"] == "both" else [f"({state['pairing']})"]))
        for graph in told["graphs"].values()
        for state in graph["states"]
    )
    return ", ".join(f"{number} {text}" for text, number in found.items()) or "none"


def verdict(done: subprocess.CompletedProcess[str]) -> str:
    """What verify said, with the number of runs."""
    if done.returncode < 0 or "onnxruntime crashed" in done.stderr:
        return "not run: onnxruntime itself crashes"
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        return f"not run: {reason(done.stderr)}"
    exact = f"equal but for {report['max_rel']:.2g}" if report["max_rel"] else "equal bit for bit"
    return f"{exact if report['verdict'] == 'equal' else report['verdict']}, {report['runs']} runs"


def reason(text: str) -> str:
    """The error line without its prefix and without names of this run's files."""
    line = next((line for line in text.splitlines() if line.startswith("error:")), text.strip().splitlines()[-1])
    line = re.sub(r"^error: (pass '[^']*'( \(after [^)]*\))?: )?(graph '[^']*': )?", "", line)
    return line.split("; wanted")[0].split(". The graph before")[0][:LONGEST].replace("|", "\\|")


DECODERS = {"K = 0": "speculative{k=0 prefill=8 ctx=32BIND}", "K = 4": "speculative{k=0,4 prefill=8 ctx=32BIND}"}
ENCODER = "encoder_sequence_length"  # no length of a text decides it: a request does
MARK = "\n<!-- decoders by architecture -->\n"
ABOUT = """
# Decoders by architecture

Tiny models with random weights, exported by optimum-onnx 0.1.0 (TorchScript) and by the dynamo exporter of
transformers 5.24; a folder each, which `ONNX_PASSES_DECODERS` names. Written by `python docs/coverage.py decoders`.
*K = 0*, *K = 4*: `speculative{k=0 prefill=8 ctx=32}` and `speculative{k=0,4 prefill=8 ctx=32}`, with `bind=` for an
encoder's length.

"""


def decoder_row(model: Path, root: Path) -> tuple[str, list[bool]]:
    """One line of the second table, and which of its results were run and equal."""
    bind = f" bind={ENCODER}:5" if ENCODER.encode() in model.read_bytes() else ""
    pipelines = ["single-shot", *(text.replace("BIND", bind) for text in DECODERS.values())]
    results = [outcome(pipeline, model)[0] for pipeline in pipelines]
    name = model.parent.relative_to(root).as_posix()
    return f"| {name} | {' | '.join(results)} |", [result.startswith("equal") for result in results]


def decoders() -> None:
    """Writes the part of the page on decoders by architecture; leaves the rest."""
    root = Path(os.environ["ONNX_PASSES_DECODERS"])
    files = [next(d / n for n in NAMES if (d / n).exists()) for d in sorted(root.glob("*/*")) if d.is_dir()]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        rows = list(pool.map(lambda model: decoder_row(model, root), files))
    heads = ["single-shot", *DECODERS]
    counts = [f"{head} {sum(row[1][at] for row in rows)} of {len(rows)}" for at, head in enumerate(heads)]
    table = f"| export | {' | '.join(heads)} |\n|---|---|---|---|\n" + "\n".join(row[0] for row in rows)
    first = PAGE.read_text(encoding="utf-8").split(MARK)[0]
    PAGE.write_text(f"{first}{MARK}{ABOUT}Equal: {', '.join(counts)}.\n\n{table}\n", encoding="utf-8")


NAMES = ("decode.onnx", "decoder_with_past_model.onnx", "model.onnx")
"""What exporters call the decoder that takes a past."""


def main() -> None:
    """Writes the page; needs the folder."""
    if sys.argv[1:] == ["decoders"]:
        decoders()
        return
    folder = os.environ.get("ONNX_PASSES_MODELS")
    if not folder:
        raise SystemExit("ONNX_PASSES_MODELS names no folder of exported models, so there is nothing to cover")
    root = Path(folder)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        rows = list(pool.map(lambda model: row(model, root), sorted(root.glob("*/*.onnx"))))
    table = "| model | states | single-shot | nodes | speculative |\n|---|---|---|---|---|\n" + "\n".join(rows)
    second = PAGE.read_text(encoding="utf-8").split(MARK)[1:] if PAGE.exists() else []
    PAGE.write_text(MARK.join([f"{HEAD}{table}\n", *second]), encoding="utf-8")


if __name__ == "__main__":
    main()
