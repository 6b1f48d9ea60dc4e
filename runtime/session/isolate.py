"""Runs work that may crash the process (onnxruntime, on some graphs) in a child, and tells how it ended."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from ...ir.core.errors import OnnxPassesError


def in_child(work: Callable[[], int], doing: str) -> int:
    """The exit code of ``work`` run in a forked child; raises OnnxPassesError where a signal killed it.

    Where that cannot be, ``work`` runs here: a system without fork, onnxruntime loaded already (threads do not fork),
    or a caller that reads this process's output.
    """
    redirected = sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__
    if not hasattr(os, "fork") or "onnxruntime" in sys.modules or redirected:
        return work()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _end_with(work)
    try:
        _, status = os.waitpid(child, 0)
    except BaseException:  # interrupted: the child goes with its parent
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        raise OnnxPassesError(
            f"onnxruntime crashed while {doing}",
            found=f"signal {signal.Signals(number).name}",
            hint="Run the original alone in onnxruntime: where it crashes too, this machine cannot verify the pair.",
        )
    return os.waitstatus_to_exitcode(status)


def _end_with(work: Callable[[], int]) -> None:
    """Ends the child with the work's exit code, its output flushed; never returns."""
    code = 1
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent tells of an interrupt, once
    try:
        code = work()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
