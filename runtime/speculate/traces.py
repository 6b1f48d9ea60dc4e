"""Traces record how many proposals were made in each step and how many the text confirmed; they are files."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...ir.core.errors import InputError, WriteError
from .plan import accept
from .proposers import Source

FORMAT = "onnx-llm-passes/trace"
MAX_BYTES = 256 << 20
MAX_K = 64
MAX_ROWS = 1024

Count = Annotated[int, Field(ge=0, le=MAX_K)]


class Header(BaseModel):
    """The first line of a trace."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Literal["onnx-llm-passes/trace"] = FORMAT
    version: Literal[1] = 1
    max_k: Annotated[int, Field(ge=0, le=MAX_K)]
    proposer: str = ""
    rows: Annotated[int, Field(ge=1, le=MAX_ROWS)] = 1


class TraceStep(BaseModel):
    """One step: for each live row how many tokens were proposed and how many of them, from the first on, were right."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    n: Annotated[list[Count], Field(min_length=1, max_length=MAX_ROWS)]
    a: Annotated[list[Count], Field(min_length=1, max_length=MAX_ROWS)]

    @model_validator(mode="after")
    def _agree(self) -> TraceStep:
        if len(self.n) != len(self.a) or any(a > n for n, a in zip(self.n, self.a, strict=True)):
            raise ValueError("a has an entry for each of n, none larger")
        return self


@dataclass
class Trace:
    """What was proposed and what was right, step by step, with at most ``max_k`` proposals each."""

    max_k: int
    rows: int = 1
    proposer: str = ""
    steps: list[TraceStep] = field(default_factory=list[TraceStep])

    def capped(self, max_k: int) -> Trace:
        """The same trace as if at most ``max_k`` tokens had been proposed."""
        steps = [TraceStep(n=[min(n, max_k) for n in step.n], a=[min(a, max_k) for a in step.a]) for step in self.steps]
        return Trace(min(max_k, self.max_k), self.rows, self.proposer, steps)


def record(texts: Iterable[tuple[Sequence[int], int]], source: Source, max_k: int, rows: int = 1) -> Trace:
    """Replays finished texts (all tokens, and how many are the prompt), every step verifying all that was proposed.

    The proposer sees what was committed so far; rows take the next text when theirs ends, as ``generate`` does.
    """
    trace = Trace(max_k, rows)
    waiting = [_Replay(list(tokens), prompt, source) for tokens, prompt in texts if prompt < len(tokens)][::-1]
    live: list[_Replay] = []
    while live or waiting:
        while waiting and len(live) < rows:
            live.append(waiting.pop())
        made = [replay.step(max_k) for replay in live]
        trace.steps.append(TraceStep(n=[n for n, _ in made], a=[a for _, a in made]))
        live = [replay for replay in live if not replay.ended]
    return trace


class _Replay:
    """One finished text, gone through once more."""

    def __init__(self, tokens: list[int], prompt: int, source: Source) -> None:
        self.tokens, self.done = tokens, prompt + 1  # reading the prompt gives the first token
        self.proposer = source()
        self.proposer.extend(tokens[: self.done])
        self.ended = self.done >= len(tokens)

    def step(self, max_k: int) -> tuple[int, int]:
        """Proposals and right ones at this point; then the text goes on behind them."""
        left = len(self.tokens) - self.done
        proposal = self.proposer.propose(max_k)[: max(0, left - 1)]
        right = accept(proposal, self.tokens[self.done :])
        added = self.tokens[self.done : self.done + right + 1]
        self.proposer.extend(added)
        self.done += len(added)
        if self.done >= len(self.tokens):
            self.ended = True
            self.proposer.finish()
        return len(proposal), right


def write_trace(trace: Trace, path: Path) -> None:
    """Writes a trace, whole or not at all."""
    header = Header(max_k=trace.max_k, proposer=trace.proposer, rows=trace.rows)
    lines = [header.model_dump_json(), *(step.model_dump_json() for step in trace.steps)]
    write_whole(path, "".join(f"{line}\n" for line in lines))


def write_whole(path: Path, text: str) -> None:
    """Writes a file under another name first and renames it; WriteError says what failed."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise WriteError(f"cannot be written: {error.strerror}", where=str(path)) from error


def read_trace(path: Path) -> Trace:
    """Reads a trace. InputError names the line that is not one of a trace's."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError("is too large for a trace", where=str(path), wanted=f"at most {MAX_BYTES} bytes")
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        hint = "Record one: give --prompt-ids too."
        raise InputError("no such file", where=str(path), wanted="a trace", hint=hint) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from error
    number = 1
    try:
        header = Header.model_validate_json(lines[0] if lines else "")
        trace = Trace(header.max_k, header.rows, header.proposer)
        for number, line in enumerate(lines[1:], start=2):  # noqa: B007  the error tells it
            if line.strip():
                trace.steps.append(TraceStep.model_validate(json.loads(line)))
    except (ValidationError, ValueError, RecursionError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise InputError(f"is no trace: {what[:200]}", where=f"{path}, line {number}") from error
    if not trace.steps:
        raise InputError("holds no step", where=str(path), hint="Record it on longer texts.")
    return trace
