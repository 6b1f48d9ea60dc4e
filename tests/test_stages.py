"""A silent command says on a terminal what it is at; into a file or pipe it writes nothing of that."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time

SLOW = """
import time
from onnx_llm_passes.cli.stages import Stages
with Stages("loading") as stage:
    time.sleep(1.7)
    stage("pass 1 of 2: simplify")
    time.sleep(1.7)
print("done")
"""


def on_a_terminal(*line: str) -> str:
    """What a process writes on a terminal that is its standard error."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    text = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            part = os.read(ours, 1024)
        except OSError:  # the child closed its side
            break
        if not part:
            break
        text += part
    os.close(ours)
    assert child.wait(60) == 0
    return text.decode()


def test_the_stage_is_drawn_with_its_seconds_and_taken_off_in_the_end() -> None:
    text = on_a_terminal(sys.executable, "-c", SLOW)
    assert "loading, 1 s" in text
    assert "pass 1 of 2: simplify, 1 s" in text
    assert text.endswith("\r\x1b[K")


def test_what_is_done_at_once_draws_nothing() -> None:
    assert on_a_terminal(sys.executable, "-c", SLOW.replace("1.7", "0.01")) == ""


def test_nothing_of_it_goes_into_a_pipe() -> None:
    done = subprocess.run([sys.executable, "-c", SLOW], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")
