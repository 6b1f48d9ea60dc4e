"""A line on the terminal says what a command is at, and since when, wherever it is silent for over a second.

A timer's signal draws it, not a thread: commands fork children to run graphs in, and a fork takes no timer along.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType
from typing import Self

from .render import printable

PATIENCE, BETWEEN = 1.0, 0.5  # seconds before the first drawing, and between two
WIDTH = 78
CLEAR = "\r\033[K"


class Stages:
    """A context that is called with each stage; where stderr is no terminal it does nothing."""

    def __init__(self, stage: str = "") -> None:
        self._stage = stage
        self._began = time.monotonic()
        self._drawn = False
        self._before: object = None
        self._shown = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and hasattr(signal, "setitimer")

    def __call__(self, stage: str) -> None:
        """Names what comes next; its seconds are counted anew. An empty one takes the line off."""
        self._stage, self._began = stage, time.monotonic()
        if not stage:
            self.clear()

    def __enter__(self) -> Self:
        if self._shown:
            self._before = signal.signal(signal.SIGALRM, self._draw)
            signal.setitimer(signal.ITIMER_REAL, PATIENCE, BETWEEN)
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)  # pyright: ignore[reportArgumentType]
        self.clear()

    def clear(self) -> None:
        """Takes the line off, for what is printed next."""
        if self._drawn:
            os.write(2, CLEAR.encode())
        self._drawn = False

    def _draw(self, _signal: int, _frame: FrameType | None) -> None:
        seconds = time.monotonic() - self._began
        if self._stage and seconds >= PATIENCE:
            text = f"{printable(self._stage)[: WIDTH - 10]}, {seconds:.0f} s"
            os.write(2, f"{CLEAR}{text}".encode())  # not through sys.stderr, whose lock the signal may have met held
            self._drawn = True
