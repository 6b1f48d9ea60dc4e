"""Damaged models, folders, side files and texts: one line, soon, in little memory, nothing outside OUT."""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import random
import resource
import shutil
import signal
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

import onnx_llm_passes
from onnx_llm_passes.cli import app
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.runtime.samples.samples import append_decoder, scatter_decoder

from .append_graphs import append_dynamo
from .damaged import BYTES, PROTOS, json_damage, pipeline_damage
from .small_graphs import BRANCH, CALL
from .weight_models import write_external

CPU_SECONDS, MEGABYTES = 2.0, 300
SAMPLE, ALL = 1, 48  # damaged inputs of each kind and graph: by default, and with the slow tests

PIPELINES = ("single-shot", "speculative{k=0,2 prefill=8 ctx=32}", "simplify", "clone-decode{k=0 ctx=16}", "ir-inline")


@pytest.fixture(scope="module", autouse=True)
def _everything_is_imported() -> None:
    """The children of this process pay for their command alone."""
    import_all()


def import_all() -> None:
    """Imports every module that a command may load."""
    for module in pkgutil.walk_packages(onnx_llm_passes.__path__, "onnx_llm_passes."):
        if module.name.split(".")[1] in ("ir", "passes", "runtime", "api", "cli"):
            importlib.import_module(module.name)


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it took."""

    code: int
    said: str
    seconds: float
    megabytes: float
    verdict: bool = False
    """Exit code 1 of `check` is its answer, *not sound*, which is no error."""


def run_alone(arguments: list[str], folder: Path) -> Ended:
    """Runs a command in a child of its own, its error stream in a file; a signal is a negative code."""
    stderr = folder / "stderr"
    before = resource.getrusage(resource.RUSAGE_SELF)
    pid = os.fork()
    if pid == 0:
        _child(arguments, stderr)
    _, status, used = os.wait4(pid, 0)
    said = stderr.read_text(encoding="utf-8", errors="replace") if stderr.exists() else ""
    stderr.unlink(missing_ok=True)
    code = os.waitstatus_to_exitcode(status)
    taken = used.ru_utime + used.ru_stime, (used.ru_maxrss - before.ru_maxrss) / 1024
    return Ended(code, said, *taken, verdict=arguments[:1] == ["check"] and code == 1)


def _child(arguments: list[str], stderr: Path) -> None:
    code = 99
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        for descriptor, place in ((1, os.devnull), (2, str(stderr))):
            os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT, 0o600), descriptor)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        code = app.run(arguments)
        sys.stderr.flush()
    finally:
        os._exit(code)


def complaint(ended: Ended) -> str:
    """What is wrong with the way a command ended; empty where nothing is."""
    lines = [line for line in ended.said.splitlines() if line.startswith("error:")]
    wrong = {
        "a signal": ended.code < 0,
        f"exit code {ended.code}": ended.code not in (0, 1, 2),
        "an internal error": "internal error" in ended.said or "the pass broke" in ended.said,
        "a traceback": "Traceback" in ended.said,
        "no line, or several": ended.code != 0 and len(lines) != 1 and not (ended.verdict and not lines),
        "a long line": any(len(line) > 4000 for line in lines),
        f"{ended.seconds:.1f} s": ended.seconds > CPU_SECONDS,
        f"{ended.megabytes:.0f} MB": ended.megabytes > MEGABYTES,
    }
    return ", ".join(name for name, holds in wrong.items() if holds)


def _text(text: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        ir.save(ir.from_onnx_text(text), folder / "model.onnx")
        return folder / "model.onnx"

    return write


def _model(build: Callable[[], ir.Model]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        ir.save(build(), folder / "model.onnx")
        return folder / "model.onnx"

    return write


GRAPHS: dict[str, Callable[[Path], Path]] = {
    "append": _model(append_dynamo),
    "append sample": _model(append_decoder),
    "scatter sample": _model(scatter_decoder),
    "branches": _text(BRANCH),
    "calls": _text(CALL),
    "weights beside": write_external,
}


def _seed(*parts: object) -> random.Random:
    return random.Random(zlib.crc32(repr(parts).encode()))


def _counts(slow: bool) -> list[object]:
    return [pytest.param(ALL, marks=pytest.mark.slow, id="all")] if slow else [pytest.param(SAMPLE, id="sample")]


COUNTS = [*_counts(False), *_counts(True)]


def _outside(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.relative_to(folder).parts[0] != "out"}


def _check(arguments: list[str], folder: Path, label: str) -> None:
    before = _outside(folder)
    ended = run_alone(arguments, folder)
    assert not complaint(ended), f"{label}: {complaint(ended)}: {ended.said[-600:]}"
    assert _outside(folder) == before, f"{label}: written outside OUT"
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder / "out")


def _command(number: int, model: Path, out: Path) -> list[str]:
    if number % 4 == 3:
        return ["inspect", str(model)]
    return ["run", PIPELINES[number % len(PIPELINES)], str(model), "-o", str(out)]


def one_model(path: Path, data: bytes, graph: str, kind: str, number: int) -> None:
    """Damages a sound model once, and runs a command on it."""
    r, folder = _seed(graph, kind, number), path.parent
    if kind in BYTES:
        damaged = BYTES[kind](data, r)
    else:
        proto = onnx.ModelProto.FromString(data)
        PROTOS[kind](proto, r)
        damaged = proto.SerializeToString()
    path.write_bytes(damaged)
    _check(_command(number, path, folder / "out"), folder, f"{graph}, {kind} {number}")


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("kind", [*BYTES, *PROTOS])
def test_a_damaged_model(tmp_path: Path, graph: str, kind: str, count: int) -> None:
    path = GRAPHS[graph](tmp_path)
    data = path.read_bytes()
    for number in range(count):
        one_model(path, data, graph, kind, number)


def one_program(folder: Path, file: str, data: bytes, number: int) -> None:
    """Damages one file of a saved program, and runs a command on the program."""
    r = _seed("program", file, number)
    text = file.endswith(".json") and number % 2
    damaged = json_damage(data.decode(), r).encode() if text else r.choice(list(BYTES.values()))(data, r)
    (folder / "saved" / file).write_bytes(damaged)
    _check(_command(number, folder / "saved", folder / "out"), folder, f"{file} {number}")


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("file", ["program.json", "model.onnx", "weights.data"])
def test_a_damaged_program(tmp_path: Path, file: str, count: int) -> None:
    ir.save(append_decoder(), tmp_path / "model.onnx")
    Program.load(tmp_path / "model.onnx").save(tmp_path / "saved")
    data = (tmp_path / "saved" / file).read_bytes()
    for number in range(count):
        one_program(tmp_path, file, data, number)


MANIFEST = (
    '{"specializations": [{"name": "Prefill", "symbols": {"batch_size": "1", "seq_len": "8", "ctx_len": "32"}}, '
    '{"name": "Decode", "symbols": {"batch_size": "1", "seq_len": "1", "ctx_len": "32"}}]}'
)
ENCODINGS = (
    '{"version": "0.6.1", "activation_encodings": {"logits": [{"bitwidth": 8, "dtype": "int", "is_symmetric": "False", '
    '"max": 1.0, "min": -1.0, "offset": -128, "scale": 0.0078}]}, "param_encodings": {}}'
)


def one_side_file(folder: Path, kind: str, number: int) -> None:
    """Damages a manifest, encodings or the text of a pipeline, and runs a command that reads it."""
    r, model, side, out = _seed(kind, number), folder / "model.onnx", folder / "side.json", str(folder / "out")
    if kind == "pipeline":
        arguments = ["run", pipeline_damage(r.choice(PIPELINES), r), str(model), "-o", out]
    elif kind == "manifest":
        side.write_text(json_damage(MANIFEST, r), encoding="utf-8", errors="replace")
        arguments = ["check", str(model), str(side)]
    else:
        side.write_text(json_damage(ENCODINGS, r), encoding="utf-8", errors="replace")
        arguments = ["run", f"load-encodings{{file={side}}}", str(model), "-o", out]
    _check(arguments, folder, f"{kind} {number}: {arguments}")


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", ["manifest", "encodings", "pipeline"])
def test_damaged_side_files_and_texts(tmp_path: Path, kind: str, count: int) -> None:
    ir.save(scatter_decoder(), tmp_path / "model.onnx")
    for number in range(count):
        one_side_file(tmp_path, kind, number)


def test_there_are_five_thousand() -> None:
    assert len(GRAPHS) * (len(BYTES) + len(PROTOS)) * ALL + 6 * ALL >= 5000


def test_a_signal_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_llm_passes.cli.app.run", lambda _: os.kill(os.getpid(), signal.SIGKILL))
    assert "a signal" in complaint(run_alone([], tmp_path))
