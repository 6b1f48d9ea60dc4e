"""What the tests of the command share: running it inside this process or as a process, and small models."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from onnx_llm_passes.cli.app import run
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.runtime.samples.samples import SAMPLES


@dataclass(frozen=True)
class Ran:
    """How a run of the command ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that says what went wrong; nothing but notes may stand before it."""
        *before, last = self.err.splitlines()
        assert last.startswith("error: "), self.err
        assert all(line.startswith(("note: ", "warning: ")) for line in before), self.err
        assert "Traceback" not in self.err
        return last.removeprefix("error: ")


class Command:
    """Runs the command inside this process and captures both streams."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self.capture = capture

    def __call__(self, *arguments: str | Path) -> Ran:
        self.capture.readouterr()
        code = run([str(argument) for argument in arguments])
        printed = self.capture.readouterr()
        return Ran(code, printed.out, printed.err)


def process(arguments: Sequence[str | Path], **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command as a process of its own."""
    whole = [sys.executable, "-m", "onnx_llm_passes", *map(str, arguments)]
    return subprocess.run(whole, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def sample(folder: Path, name: str = "append") -> Path:
    """One of the demo's models as ``folder/model.onnx``, weights beside it; returns the file."""
    Program(graphs={"model": SAMPLES[name]()}).save(folder, fill_shapes=False)
    (folder / "program.json").unlink()
    return folder / "model.onnx"


def half_paired(folder: Path) -> Path:
    """The sample without the output of its last state: the state is there in one direction only."""
    path = sample(folder)
    model = onnx.load(path, load_external_data=False)
    assert model.graph.output[-1].name == "present.1.value"
    del model.graph.output[-1]
    path.write_bytes(model.SerializeToString())
    return path


def plain(path: Path, *, states: str = "none", output: str = "score") -> Path:
    """A graph of one operator without states, or (``both``) of a Concat that is a state."""
    past = helper.make_tensor_value_info("past_key_values.0.key", TensorProto.FLOAT, ["b", 2, "past", 4])
    new = helper.make_tensor_value_info("new", TensorProto.FLOAT, ["b", 2, "s", 4])
    whole = helper.make_tensor_value_info("present.0.key", TensorProto.FLOAT, ["b", 2, "past + s", 4])
    score = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["b", 2, "t", 4])
    concat = helper.make_node("Concat", [past.name, "new"], [whole.name], "join", axis=2)
    nodes, inputs, outputs = {
        "none": ([helper.make_node("Neg", ["new"], [output], "use")], [new], [score]),
        "both": ([concat, helper.make_node("Neg", [whole.name], [output], "use")], [past, new], [score, whole]),
    }[states]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def with_external_weights(folder: Path, location: str = "model.data") -> Path:
    """A graph whose one initializer lies in ``location``; the file itself is not written."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1024], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", location), ("offset", "0"), ("length", "4096")):
        weight.external_data.add(key=key, value=text)
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1024])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1024])
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"], "add")], "g", [info], [result], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def names(path: Path) -> tuple[list[str], list[str]]:
    """Inputs and outputs of a saved graph."""
    graph = ir.load(path).graph
    return [v.name or "" for v in graph.inputs], [v.name or "" for v in graph.outputs]


@contextlib.contextmanager
def interruptible(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that takes SIGINT even where this one was started with it ignored, and that is gone afterwards.

    A shell without job control starts background jobs with SIGINT ignored, and every child inherits that (POSIX.1-2017,
    Shell Command Language 2.11).
    """
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  no thread of ours runs here
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()
