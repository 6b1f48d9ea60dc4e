"""A crash in the child is told by the parent."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, signal
from onnx_llm_passes.runtime.session.isolate import in_child
def work():
    {work}
    return 3
try:
    print(in_child(work, "testing"))
except Exception as error:
    print(error)
"""


def told(work: str) -> str:
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(work=work)], capture_output=True, text=True, check=True)
    return done.stdout


def test_the_exit_code_comes_back() -> None:
    assert told("pass") == "3\n"


def test_a_crash_names_the_signal() -> None:
    assert "crashed while testing; found signal SIGSEGV" in told("os.kill(os.getpid(), signal.SIGSEGV)")


def test_output_of_the_child_is_not_lost() -> None:
    assert told("print('from the child')").startswith("from the child\n")
