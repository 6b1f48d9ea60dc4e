"""`run` proves its result by running it: what differs is not written, and no weight is read for it."""

from __future__ import annotations

import os
from pathlib import Path

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import NotEqualError
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.passes.manager import PassManager
from onnx_llm_passes.passes.pipeline import parse_pipeline
from onnx_llm_passes.runtime.samples.blocks import Tiny
from onnx_llm_passes.runtime.samples.samples import append_decoder
from onnx_llm_passes.runtime.session.limited import in_limits
from onnx_llm_passes.runtime.verify import prove_run
from onnx_llm_passes.runtime.verify.prove_run import Prove, prove_result, seeded

from .cli_tools import process, sample

SINGLE_SHOT = "single-shot"


def stripped(path: Path) -> Program:
    """The program of a file after single-shot, in memory."""
    return PassManager(parse_pipeline(SINGLE_SHOT)).run(Program.load(path))


def spoil(program: Program) -> None:
    """A scale of the result is another one: what a wrong rewrite does."""
    graph = program.graphs["model"].graph
    node = next(node for node in graph if node.op_type == "Softmax")
    node.replace_input_with(0, node.inputs[0].producer().inputs[0])  # pyright: ignore[reportOptionalMemberAccess]


def test_an_equal_result_is_proved(tmp_path: Path) -> None:
    path = sample(tmp_path)
    proof = prove_result(lambda: Program.load(path), stripped(path), 0, Prove.AUTO)
    assert proof.runs > 0
    assert proof.text == f"proved by running it on tiny sizes: equal in {proof.runs} runs"


@pytest.mark.parametrize("choice", [Prove.AUTO, Prove.ALWAYS])
def test_a_different_result_is_refused(tmp_path: Path, choice: Prove) -> None:
    path = sample(tmp_path)
    result = stripped(path)
    spoil(result)
    with pytest.raises(NotEqualError, match="logits: values differ first at"):
        prove_result(lambda: Program.load(path), result, 0, choice)
    assert prove_result(lambda: Program.load(path), result, 0, Prove.NEVER).text == ""


def test_a_large_result_is_proved_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sample(tmp_path)
    for limit, said in (("MAX_NODES", "nodes are many"), ("MAX_WEIGHTS", "weights are many")):
        with monkeypatch.context() as patch:
            patch.setattr(prove_run, limit, 10)
            assert said in prove_result(lambda: Program.load(path), stripped(path), 0, Prove.AUTO).reason
            assert prove_result(lambda: Program.load(path), stripped(path), 0, Prove.ALWAYS).runs > 0


def test_what_changes_numbers_is_not_compared(tmp_path: Path) -> None:
    path = sample(tmp_path)
    result = PassManager(parse_pipeline("strip-states,ir-name-fix")).run(Program.load(path))
    proof = prove_result(lambda: Program.load(path), result, 0, Prove.AUTO)
    assert proof.text == "not proved by running it: ir-name-fix changes what is computed"


def test_no_weight_is_read(tmp_path: Path) -> None:
    Program(graphs={"model": append_decoder(Tiny(hidden=64))}).save(tmp_path)
    original, result = Program.load(tmp_path), Program.load(tmp_path)
    PassManager(parse_pipeline(SINGLE_SHOT)).run(result)
    os.truncate(tmp_path / "weights.data", 0)
    assert prove_result(lambda: original, result, 0, Prove.AUTO).runs > 0


def test_the_same_weight_gets_the_same_numbers(tmp_path: Path) -> None:
    Program(graphs={"model": append_decoder(Tiny(hidden=64))}).save(tmp_path)
    first, second = (seeded(Program.load(tmp_path)).graphs["model"].graph.initializers for _ in range(2))
    put = [name for name, value in first.items() if isinstance(value.const_value, ir.Tensor)]
    assert len(put) > 10
    for name in put:
        ours, theirs = first[name].const_value, second[name].const_value
        assert ours is not None
        assert theirs is not None
        assert (ours.numpy() == theirs.numpy()).all()


def test_the_command_refuses_and_says_so(tmp_path: Path) -> None:
    path = sample(tmp_path / "in")
    done = process(["run", SINGLE_SHOT, path, "-o", tmp_path / "out"])
    assert done.returncode == 0
    assert "proved by running it on tiny sizes: equal in 16 runs" in done.stdout


CRASH = """
import os, signal
from onnx_llm_passes.runtime.session.limited import in_limits
def crash(): os.kill(os.getpid(), signal.SIGSEGV)
def raising(): raise ValueError("no such kernel")
def spinning():
    while True: pass
def growing():
    return str(len([bytearray(1 << 20) for _ in range(4096)]))
print(in_limits(lambda: "fine").text)
for work in (crash, raising, spinning, growing):
    print(in_limits(work, 1, 1 << 28).reason)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_proof_that_fails_ends_alone() -> None:
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "fine",
        "onnxruntime crashed (SIGSEGV)",
        "ValueError: no such kernel",
        "it took too long",
        "it needs too much memory",
    ]


def test_work_is_done_here_where_the_runtime_is_loaded() -> None:
    import onnxruntime

    assert onnxruntime.__version__
    assert in_limits(lambda: "said").text == "said"
