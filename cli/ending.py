"""A run of the command ends in one line on stderr for every failure, an exit code, and a quick exit."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from ..ir.core.errors import OnnxPassesError
from .render import printable, show_json

INTERRUPTED = 130  # 128 + SIGINT, what a shell expects
BROKEN_PIPE = 141  # 128 + SIGPIPE
TERMINATED = 143  # 128 + SIGTERM


class Terminated(KeyboardInterrupt):
    """Somebody asked the process to end: it cleans up as after Ctrl-C."""


def prepare() -> None:
    """What the whole process needs before anything else: no character that cannot be printed, and a clean end."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _on_terminate)


def _on_terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def guarded(call: Callable[[], int], *, debug: Callable[[], bool], as_json: bool = False) -> int:
    """Runs ``call`` and turns whatever it raises into one line on stderr and an exit code.

    ``debug`` is asked only after a failure: with it the traceback is printed above the line. ``as_json`` prints the
    failure as one object on stdout too, for a reader that waits for one.
    """
    try:
        code = call()
        sys.stdout.flush()
    except BaseException as error:
        line, code = explain(error)
        if line and debug():
            traceback.print_exc()
        if line:
            _say(f"error: {line}")
        if line and as_json:
            _say_json(error, line, code)
    return code


def _say_json(error: BaseException, line: str, code: int) -> None:
    """``{"schema": …, "error": {…}, "exit_code": N}``; the parts of an error of ours, and its line for any other."""
    parts = ("what", "where", "found", "wanted", "hint") if isinstance(error, OnnxPassesError) else ()
    parts_named = {part: str(value) for part in parts if (value := getattr(error, part)) not in (None, "")}
    with contextlib.suppress(OSError):
        show_json({"error": {"message": line, "kind": type(error).__name__, **parts_named}, "exit_code": code})
        sys.stdout.flush()


def explain(error: BaseException) -> tuple[str, int]:
    """The line (empty where nothing is to be said) and the exit code that ``error`` stands for."""
    if isinstance(error, OnnxPassesError):
        return str(error), error.exit_code
    # typer has its own copy of click in some releases and uses the installed one in others: ask for the method
    message = getattr(error, "format_message", None)
    if callable(message):
        return _usage(error, str(message())), 2
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):  # --help, --version: click ends a command by raising Exit
        return "", code
    if isinstance(error, SystemExit):  # typer ends --install-completion so
        return "", error.code if isinstance(error.code, int) else 1
    for kind, reply in _REPLIES:
        if isinstance(error, kind):
            return reply(error)
    text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    return f"internal error: {text}. Run it again with --debug and please report what it prints", 1


def leave(code: int) -> NoReturn:
    """Ends the process at once, with both streams flushed.

    A loaded graph is some hundred thousand Python objects; freeing them one by one at exit costs as much as reading
    the model did, and the process is going away. Every file is written and closed by now: ``run`` has returned.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or BROKEN_PIPE
    os._exit(code)


def _usage(error: BaseException, message: str) -> str:
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "onnx-passes")
    sentence = " ".join(message.split())
    return f"{sentence}{'' if sentence.endswith(('.', '?')) else '.'} See '{command} --help'"


def _os_error(error: BaseException) -> tuple[str, int]:
    assert isinstance(error, OSError)
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{where}", 1


def _say(line: str) -> None:
    try:
        sys.stderr.write(f"{printable(line)}\n")
        sys.stderr.flush()
    except OSError:
        return  # nobody listens; the exit code still tells


def _broken_pipe(_: BaseException) -> tuple[str, int]:
    # the reader went away (`| head`); what is still buffered must not raise once more at exit
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return "", BROKEN_PIPE


_REPLIES: tuple[tuple[type[BaseException], Callable[[BaseException], tuple[str, int]]], ...] = (
    (Terminated, lambda _: ("terminated; nothing was left half-written", TERMINATED)),
    (KeyboardInterrupt, lambda _: ("interrupted; nothing was left half-written", INTERRUPTED)),
    (BrokenPipeError, _broken_pipe),
    (MemoryError, lambda _: ("out of memory; close other programs or use a machine with more", 1)),
    (OSError, _os_error),
)
