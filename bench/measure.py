"""Runs one command in a process of its own and reads what it cost from the kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Limits:
    """What a command may take before it is stopped."""

    seconds: float = 300.0
    megabytes: int = 6000


@dataclass(frozen=True)
class Cost:
    """One run: wall and processor seconds, peak megabytes, bytes that read calls returned; why it failed, if it did."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    read_bytes: int
    failure: str = ""

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return dict(vars(self))


def run(command: Sequence[str], *, cwd: Path, limits: Limits, extra: Mapping[str, str] | None = None) -> Cost:
    """Runs ``command`` to its end, or to its limit, and returns its cost; ``extra`` goes over the environment.

    Peak memory is the kernel's high-water mark of the process. A process forked from a large parent would inherit the
    parent's mark, so whoever calls this must stay small.
    """
    log = cwd / "stderr.txt"
    with log.open("wb") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=errors, env={**_environment(), **(extra or {})}
        )
        stopped = _watch(process, limits, start)
        seconds = time.perf_counter() - start
    read = _read_bytes(process.pid)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    failure = stopped or (_last_line(log) if process.returncode else "")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, read, failure)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "NO_COLOR": "1", "PYTHONHASHSEED": "0"}


def _watch(process: subprocess.Popen[bytes], limits: Limits, start: float) -> str:
    # Sleeps until the process ends while a thread keeps watch. The zombie stays: /proc/PID/io is read next.
    flags = os.WEXITED | os.WNOWAIT
    killer = _Killer(process, limits, start)
    killer.start()
    os.waitid(os.P_PID, process.pid, flags)
    return killer.finish()


class _Killer:
    """A thread that stops a process over its limits."""

    def __init__(self, process: subprocess.Popen[bytes], limits: Limits, start: float) -> None:
        import threading

        self.process, self.limits, self.begun = process, limits, start
        self.reason = ""
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._loop, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def finish(self) -> str:
        self.done.set()
        self.thread.join()
        return self.reason

    def _loop(self) -> None:
        while not self.done.wait(POLL_SECONDS):
            if time.perf_counter() - self.begun > self.limits.seconds:
                self.reason = f"stopped after {self.limits.seconds:.0f} s"
            elif anonymous_megabytes(self.process.pid) > self.limits.megabytes:
                self.reason = f"stopped at {self.limits.megabytes} MB"
            if self.reason:
                self.process.send_signal(signal.SIGKILL)
                return


def anonymous_megabytes(pid: int) -> float:
    """Memory of the process that is no file's page; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    line = next((line for line in status.splitlines() if line.startswith("RssAnon")), "RssAnon: 0 kB")
    return int(line.split()[1]) / 1024


def _read_bytes(pid: int) -> int:
    try:
        fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    except OSError:
        return -1
    return int(fields["rchar"])


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "failed without a word"
