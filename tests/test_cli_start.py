"""What starting the command costs, told by what it loads: help, lists and usage errors load no graph library."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .cli_tools import process, sample

HEAVY = ("onnxruntime", "onnxscript", "onnx_graphsurgeon", "onnx", "onnx_ir", "numpy", "networkx", "sympy", "rich")
LOADED = """
import sys
from onnx_llm_passes.cli.app import run
code = run(sys.argv[2:])
print("LOADED", code, *[name for name in sys.argv[1].split(",") if name in sys.modules])
"""


def loaded(*arguments: str) -> tuple[int, set[str]]:
    """The exit code of a run in a fresh process, and which of the heavy packages it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, ",".join(HEAVY), *arguments], capture_output=True, text=True, check=True
    )
    last = done.stdout.splitlines()[-1].split()
    assert last[0] == "LOADED"
    return int(last[1]), set(last[2:])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--help",), 0),
        (("--version",), 0),
        ((), 2),
        (("run", "--help"), 0),
        (("list",), 0),
        (("list", "--json"), 0),
        (("list", "no-such-pass"), 2),
        (("run", "--no-such-flag"), 2),
        (("run", "strip-stats", "model.onnx", "-o", "out"), 2),
        (("run", "strip-states{", "model.onnx", "-o", "out"), 2),
        (("inspect", "model.onnx", "--bind", "x"), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_quick_answers_load_nothing_heavy(arguments: tuple[str, ...], code: int) -> None:
    assert loaded(*arguments) == (code, set())


def test_the_test_sees_what_is_loaded() -> None:
    code, heavy = loaded("inspect", "nowhere.onnx")
    assert code == 2
    assert {"onnx", "onnx_ir", "numpy"} <= heavy


def test_running_a_pipeline_does_not_load_the_runtime(tmp_path: Path) -> None:
    code, heavy = loaded("run", "strip-states", str(sample(tmp_path / "in")), "-o", str(tmp_path / "out"))
    assert code == 0
    assert heavy & {"onnxruntime", "onnxscript", "onnx_graphsurgeon", "rich"} == set()


def test_the_module_is_the_command() -> None:
    done = process(["--version"])
    assert done.returncode == 0
    assert done.stdout.startswith("onnx-passes 0.")
    assert done.stderr == ""


def completed(words: str, at: int) -> list[str]:
    """What a bash offers behind these words."""
    given = {"_ONNX_PASSES_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(at)}
    line = [sys.executable, "-m", "onnx_llm_passes"]
    return subprocess.run(line, env={**os.environ, **given}, capture_output=True, text=True, check=True).stdout.split()


def test_a_tab_completes_commands_options_and_the_last_pass_of_a_pipeline() -> None:
    assert completed("onnx-passes ver", 1) == ["verify"]
    assert "--tolerance" in completed("onnx-passes verify --tol", 2)
    assert completed("onnx-passes run single-shot,argm", 2) == ["single-shot,argmax-tail"]


def test_completion_is_installed_where_the_shell_looks(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "onnx_llm_passes", "--install-completion", "bash"]
    named = {
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"
    }  # else typer asks the processes above which shell it is
    home = {**os.environ, **named, "HOME": str(tmp_path)}
    done = subprocess.run(line, env=home, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "onnx-passes" in (tmp_path / ".bash_completions" / "onnx-passes.sh").read_text(encoding="utf-8")
