"""Writes docs/consumers.md (`make consumers`): which runtimes compile and compute what is made of every model.

``python docs/consumers.py openvino iree`` tells of those alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "consumers.md"
SECONDS = 1800  # one model's outputs on one runtime
HEAD = """# Consumers

What other compilers and runtimes do with the outputs made of models that real exporters wrote (random weights, two to
six layers). Written by `make consumers` from the folder that `ONNX_PASSES_MODELS` names; never edited by hand.

Every output is lowered for the runtime (`lower{target=…}`) and has static shapes. It is read from its file, compiled,
and run over three steps beside onnxruntime, its states carried on. A cell holds the largest difference over all graphs,
outputs and steps, divided by an output's largest value (or by 1); up to 1e-5 it is equal (1e-3 in half precision).
A number in brackets is a reason below. `-`: the pipeline refuses the model; docs/coverage.md says why.

"""


def rows_of(model: Path, consumer: str) -> dict[str, list[str] | None]:
    """Output -> ``[gap, why]`` of its worst graph, None where the pipeline refuses; in a process of its own."""
    line = [sys.executable, __file__, "--one", str(model), consumer]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT.parent), os.environ.get("PYTHONPATH", "")))}
    try:
        done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return {"": ["", f"no answer in {SECONDS} s"]}
    if done.returncode:
        return {"": ["", f"its process ended with {done.returncode}"]}
    return json.loads(done.stdout.splitlines()[-1])


def one(model: Path, consumer: str) -> dict[str, list[str] | None]:
    """What a runtime makes of every output of one model."""
    sys.path.insert(0, str(ROOT))
    from onnx_llm_passes.ir.core.errors import OnnxPassesError
    from tests.consumer_outputs import built, outputs_for
    from tests.consumer_tools import CONSUMERS, answers

    found: dict[str, list[str] | None] = {}
    for output in outputs_for(consumer):
        try:
            program = built(model, output, CONSUMERS[consumer].target)
        except OnnxPassesError:
            found[output] = None
            continue
        with tempfile.TemporaryDirectory() as folder:
            program.save(Path(folder) / "out")
            told = list(answers(program, Path(folder) / "out", CONSUMERS[consumer]))
        worst = max(told, key=lambda answer: (bool(answer.why), answer.gap))
        found[output] = [f"{worst.gap:.1e}", worst.why]
    return found


def table(consumer: str, version: str, found: dict[str, dict[str, list[str] | None]]) -> str:
    """One runtime's section: models by outputs, and the reasons."""
    outputs = list(dict.fromkeys(output for cells in found.values() for output in cells if output))
    reasons: dict[str, int] = {}
    lines = [f"| model | {' | '.join(outputs)} |", "|---" * (len(outputs) + 1) + "|"]
    for model, cells in found.items():
        shown = [_cell(cells.get(output, cells.get("")), reasons) for output in outputs]
        lines.append(f"| {model} | {' | '.join(shown)} |")
    cells = [cell for row in found.values() for cell in row.values() if cell is not None]
    taken = sum(not cell[1] for cell in cells)
    told = [f"{number}. {why}" for why, number in reasons.items()]
    head = f"## {version}\n\n{taken} of {len(cells)} outputs are taken and equal.\n\n"
    return head + "\n".join(lines) + "\n" + ("\n" + "\n".join(told) + "\n" if told else "")


def _cell(cell: list[str] | None, reasons: dict[str, int]) -> str:
    if cell is None:
        return "-"
    gap, why = cell
    return f"no ({reasons.setdefault(why.replace('|', '/'), len(reasons) + 1)})" if why else gap


def main() -> None:
    """Writes the page; needs the folder, and the runtimes that it tells of."""
    folder = os.environ.get("ONNX_PASSES_MODELS")
    if not folder:
        raise SystemExit("ONNX_PASSES_MODELS names no folder of exported models")
    sys.path.insert(0, str(ROOT))
    from tests.consumer_tools import CONSUMERS

    root, sections = Path(folder), list[str]()
    models = sorted(root.glob("*/*.onnx"))
    for consumer in (CONSUMERS[name] for name in sys.argv[1:] or CONSUMERS):
        if consumer.missing:
            raise SystemExit(f"{consumer.name}: {consumer.missing}")
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            cells = list(pool.map(lambda model, name=consumer.name: rows_of(model, name), models))
        names = [model.relative_to(root).with_suffix("").as_posix() for model in models]
        sections.append(table(consumer.name, consumer.version, dict(zip(names, cells, strict=True))))
        PAGE.write_text(HEAD + "\n".join(sections), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(Path(sys.argv[2]), sys.argv[3])))  # noqa: T201  the parent process reads it
    else:
        main()
