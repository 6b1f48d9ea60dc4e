"""Runs work of an optional nature in a child with limits on time and memory, and tells what it said."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn


@dataclass(frozen=True)
class Ended:
    """What the work returned, or why it did not."""

    text: str = ""
    reason: str = ""


def in_limits(work: Callable[[], str], cpu_seconds: int | None = None, memory: int | None = None) -> Ended:
    """What ``work`` returns, run in a forked child that may crash, or be stopped at a limit, alone.

    ``memory`` is in bytes, on top of what this process has. Without fork, or where onnxruntime is loaded already (its
    threads do not fork), the work runs here, without limits. What ``work`` raises becomes the reason.
    """
    if not hasattr(os, "fork") or "onnxruntime" in sys.modules:
        return Ended(work())
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _work_in_child(work, writing, cpu_seconds, memory)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
    except BaseException:  # interrupted: the child goes with its parent
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    return _ended(said.decode("utf-8", "replace"), status)


def _ended(said: str, status: int) -> Ended:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        why = "it took too long" if number == signal.SIGXCPU else f"onnxruntime crashed ({signal.Signals(number).name})"
        return Ended(reason=why)
    code = os.waitstatus_to_exitcode(status)
    return Ended(said) if code == 0 else Ended(reason=said or "it failed")


def _work_in_child(work: Callable[[], str], writing: int, cpu_seconds: int | None, memory: int | None) -> NoReturn:
    """Writes what the work says to the pipe and ends the process: 0 where it returned, 1 where it raised."""
    code, said = 1, ""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent tells of an interrupt, once
    try:
        _limit(cpu_seconds, memory)
        said, code = work(), 0
    except MemoryError:
        said = "it needs too much memory"
    except Exception as error:  # of any library: a proof that fails to run proves nothing, either way
        said = " ".join(f"{type(error).__name__}: {error}".split())[:400]
    finally:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(said.encode("utf-8", "replace"))
        os._exit(code)


def _limit(cpu_seconds: int | None, memory: int | None) -> None:
    try:
        import resource
    except ImportError:  # no such limits on this system
        return
    if cpu_seconds is not None:
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (int(used) + cpu_seconds, int(used) + cpu_seconds + 1))
    if memory is not None:
        most = _data_size() + memory
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _data_size() -> int:
    """How large this process's data is already, in bytes; a guess where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 1 << 31
