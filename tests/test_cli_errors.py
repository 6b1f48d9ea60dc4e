"""What a user's mistake or a bad file gets: one line that says what to do, an exit code, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from onnx_llm_passes.ir.program.program import Program

from .cli_tools import Command, contents, half_paired, interruptible, plain, process, sample, with_external_weights


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def truncated(folder: Path) -> Path:
    whole = sample(folder / "whole")
    path = folder / "model.onnx"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return path


def text(folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_text("not a model at all\n")
    return path


def linked_elsewhere(folder: Path) -> Path:
    elsewhere, inside = folder / "elsewhere", folder / "inside"
    elsewhere.mkdir()
    inside.mkdir()
    (elsewhere / "secret.data").write_bytes(bytes(4096))
    (inside / "model.data").symlink_to(elsewhere / "secret.data")
    return with_external_weights(inside)


def two_models(folder: Path) -> Path:
    plain(folder / "a.onnx")
    plain(folder / "b.onnx")
    return folder


BAD_MODELS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "nowhere.onnx", "no such file"),
    "not ONNX": (text, "not an ONNX model"),
    "truncated": (truncated, "truncated"),
    "external data missing": (with_external_weights, "is missing"),
    "external data escaping": (lambda folder: with_external_weights(folder, "../w.data"), "in the model's folder"),
    "external data absolute": (lambda folder: with_external_weights(folder, "/etc/hostname"), "in the model's folder"),
    "external data linked elsewhere": (linked_elsewhere, "--follow-links"),
    "empty folder": (lambda folder: folder, "no .onnx file"),
    "folder of two models": (two_models, "one of the files"),
}


@pytest.mark.parametrize("verb", ["run", "inspect", "verify", "diff"])
@pytest.mark.parametrize("case", BAD_MODELS)
def test_a_bad_model_is_told_in_one_line(case: str, verb: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    build, words = BAD_MODELS[case]
    model, out = build(tmp_path / "in"), tmp_path / "out"
    arguments = {
        "run": ("run", "strip-states", model, "-o", out),
        "inspect": ("inspect", model),
        "verify": ("verify", model, model),
        "diff": ("diff", model, model),
    }
    ran = command(*arguments[verb])
    assert ran.code == 2
    assert ran.out == ""
    assert words in ran.error
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_follow_links_accepts_what_was_refused(command: Command, tmp_path: Path) -> None:
    assert command("inspect", linked_elsewhere(tmp_path), "--follow-links").code == 0


USAGE = {
    "unknown command": (["lst"], "Did you mean 'list'?"),
    "unknown flag": (["list", "--jsn"], "--json"),
    "unknown pass": (["run", "strip-stats", "MODEL", "-o", "OUT"], "Did you mean 'strip-states'"),
    "unknown pass to list": (["list", "simplfy"], "Did you mean 'simplify'"),
    "unknown option": (["run", "strip-states{position=any}", "MODEL", "-o", "OUT"], "Did you mean 'positions'?"),
    "bad value": (["run", "strip-states{positions=sometimes}", "MODEL", "-o", "OUT"], "one of ordered, any"),
    "bad number": (["run", "strip-states{layers=one}", "MODEL", "-o", "OUT"], "integers"),
    "bad text": (["run", "strip-states{", "MODEL", "-o", "OUT"], "cannot be read at character 14"),
    "no OUT": (["run", "strip-states", "MODEL"], "-o"),
    "bad weights mode": (["run", "strip-states", "MODEL", "-o", "OUT", "--weights", "move"], "refer"),
    "print after what does not run": (
        ["run", "strip-states", "MODEL", "-o", "OUT", "--print-after", "strip-state"],
        "Did you mean 'strip-states'",
    ),
    "script not allowed": (["run", "surgeon{script=a.py}", "MODEL", "-o", "OUT"], "--allow-scripts"),
    "bad binding": (["inspect", "MODEL", "--bind", "past"], "SYMBOL=N"),
    "negative binding": (["inspect", "MODEL", "--bind", "past=-1"], "SYMBOL=N"),
    "unknown symbol": (["inspect", "MODEL", "--bind", "pst=4"], "Did you mean 'past'"),
    "inputs missing": (["verify", "MODEL", "MODEL", "--inputs", "OUT.npz"], "no such file"),
}


@pytest.mark.parametrize("case", USAGE)
def test_a_mistake_on_the_command_line_exits_2(case: str, command: Command, tmp_path: Path) -> None:
    model = plain(tmp_path / "model.onnx", states="both")
    words, wanted = USAGE[case]
    places = {"MODEL": str(model), "OUT": str(tmp_path / "out"), "OUT.npz": str(tmp_path / "out.npz")}
    ran = command(*(places.get(word, word) for word in words))
    assert ran.code == 2
    assert wanted in ran.error
    assert ran.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_half_a_state_is_refused_with_exit_1(command: Command, tmp_path: Path) -> None:
    model = half_paired(tmp_path / "in")
    ran = command("run", "strip-states", model, "-o", tmp_path / "out")
    assert ran.code == 1
    assert "past_key_values.1.value" in ran.error
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_no_states_is_a_note_and_exit_0(command: Command, tmp_path: Path) -> None:
    model = plain(tmp_path / "model.onnx")
    ran = command("run", "strip-states", model, "-o", tmp_path / "out")
    assert ran.code == 0
    assert ran.err.startswith("note: ")
    assert "no carried state" in ran.err
    assert (tmp_path / "out" / "model.onnx").exists()


def test_a_file_of_the_users_in_out_is_never_overwritten(command: Command, tmp_path: Path) -> None:
    model, out = plain(tmp_path / "model.onnx", states="both"), tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").write_bytes(b"mine")
    (out / "notes.txt").write_bytes(b"mine too")
    before = contents(out)
    ran = command("run", "strip-states", model, "-o", out)
    assert ran.code == 2
    assert "--force" in ran.error
    assert contents(out) == before
    assert command("run", "strip-states", model, "-o", out, "--force").code == 0
    assert contents(out)["notes.txt"] == b"mine too"
    assert contents(out)["model.onnx"] != b"mine"


def test_a_full_disk_leaves_the_old_output_whole(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = sample(tmp_path / "in"), tmp_path / "out"
    assert command("run", "strip-states", model, "-o", out).code == 0
    before = contents(tmp_path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    ran = command("run", "strip-states,simplify", model, "-o", out)
    assert ran.code == 1
    assert "disk is full" in ran.error
    assert contents(tmp_path) == before


def test_a_dump_folder_that_is_none_is_told_before_anything_is_written(command: Command, tmp_path: Path) -> None:
    ran = command("run", "strip-states", plain(tmp_path / "model.onnx"), "-o", tmp_path / "out", "--dump", "/dev/full")
    assert ran.code == 2
    assert "/dev/full" in ran.error
    assert not (tmp_path / "out").exists()


INTERRUPTED = """
import sys
import onnx_llm_passes.ir.program.save as saving
original = saving._write_file
def slow(path, data):
    original(path, data)
    sys.stderr.write("READY\\n"); sys.stderr.flush()
    __import__("time").sleep(30)
saving._write_file = slow
from onnx_llm_passes.__main__ import main
sys.argv = ["onnx-passes", "run", "strip-states", sys.argv[1], "-o", sys.argv[2]]
main()
"""


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_in_the_middle_of_writing_leaves_nothing_half_written(
    number: signal.Signals, code: int, word: str, tmp_path: Path
) -> None:
    model, out = plain(tmp_path / "model.onnx", states="both"), tmp_path / "out"
    with interruptible([sys.executable, "-c", INTERRUPTED, str(model), str(out)]) as child:
        assert child.stderr is not None
        assert child.stderr.readline() == "READY\n"
        child.send_signal(number)
        rest = child.stderr.read()
        assert child.wait(60) == code
    assert rest.splitlines() == [f"error: {word}; nothing was left half-written"]
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_name_in_a_model_does_not_steer_the_terminal(command: Command, tmp_path: Path) -> None:
    model = plain(tmp_path / "model.onnx", output="sc\x1b[2Jore")
    for arguments in (("inspect", model), ("run", "strip-states,rename-io{map=no:x}", model, "-o", tmp_path / "out")):
        ran = command(*arguments)
        assert "\x1b" not in ran.out + ran.err
    assert "sc\\x1b[2Jore" in command("inspect", model).out


def test_a_narrow_encoding_is_no_error(tmp_path: Path) -> None:
    done = process(["inspect", plain(tmp_path / "model.onnx", states="both")], PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0
    assert done.stderr == ""
    assert process(["list", "strip-states"], PYTHONIOENCODING="ascii", PYTHONUTF8="0").returncode == 0


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "onnx_llm_passes", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    assert child.stderr.read() == ""
    assert child.wait(20) == 141


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError(), 1, "out of memory"),
        (PermissionError(errno.EACCES, "Permission denied", "there"), 1, "Permission denied: there"),
        (ValueError("two\nlines"), 1, "internal error: ValueError: two lines"),
        (RecursionError("deep"), 1, "internal error"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_whatever_happens_is_one_line(
    error: BaseException, code: int, words: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Program:
        raise error

    monkeypatch.setattr(Program, "load", fail)
    ran = command("inspect", tmp_path)
    assert ran.code == code
    assert words in ran.error


def test_debug_shows_the_traceback(command: Command, tmp_path: Path) -> None:
    for arguments in (("--debug", "inspect", tmp_path / "no"), ("inspect", tmp_path / "no", "--debug")):
        ran = command(*arguments)
        assert ran.code == 2
        assert "Traceback" in ran.err
        assert ran.err.splitlines()[-1].startswith("error: ")


def test_the_exit_code_reaches_the_shell(tmp_path: Path) -> None:
    done = process(["inspect", tmp_path / "no.onnx"])
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_a_bad_npz_is_told(command: Command, tmp_path: Path) -> None:
    model, arrays = plain(tmp_path / "model.onnx", states="both"), tmp_path / "a.npz"
    arrays.write_bytes(b"PK\x03\x04 not really")
    ran = command("verify", model, model, "--inputs", arrays)
    assert ran.code == 2
    assert "numpy.savez" in ran.error


@pytest.mark.parametrize("arguments", [("list", "nosuch"), ("run", "nosuch", "m.onnx", "-o", "z"), ("inspect",)])
def test_a_failure_is_one_json_object_too(command: Command, arguments: tuple[str, ...]) -> None:
    ran = command(*arguments, "--json")
    found = json.loads(ran.out)
    assert (ran.code, found["exit_code"], found["schema"]) == (2, 2, 1)
    assert ran.err == f"error: {found['error']['message']}\n"


def test_a_failure_tells_its_parts_as_json(command: Command, tmp_path: Path) -> None:
    error = json.loads(command("inspect", tmp_path / "none.onnx", "--json").out)["error"]
    assert error["kind"] == "InputError"
    assert error["where"] == str(tmp_path / "none.onnx")


def test_every_object_says_its_schema_first(command: Command, tmp_path: Path) -> None:
    model = plain(tmp_path / "model.onnx", states="both")
    for arguments in (("list",), ("list", "simplify"), ("diff", model, model), ("verify", model, model)):
        assert next(iter(json.loads(command(*arguments, "--json").out).items())) == ("schema", 1)
