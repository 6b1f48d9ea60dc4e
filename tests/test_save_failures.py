"""Saves that fail in the middle: full disks, interrupts, kills, invalid graphs; nothing is left half-written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import OnnxPassesError, WriteError
from onnx_llm_passes.ir.program import save as saving
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.serialization import atomic_folder as outputs
from onnx_llm_passes.ir.serialization import sparse_copy as copying

from .weight_models import WIDTH, chain, old_and_new, tiny_disk, tree, write_embedded, write_external

__all__ = ["tiny_disk"]  # a fixture


# failing in the middle ----------------------------------------------------------------------------


def full(*_: object) -> None:
    """A write on a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupted(*_: object) -> None:
    """Ctrl-C."""
    raise KeyboardInterrupt


STAGES: list[tuple[object, str]] = [
    (saving, "write_weights"),
    (saving, "_write_file"),
    (saving, "_prove"),
    (saving, "_index"),
    (outputs, "sync_folder"),
    (outputs, "exchange"),
]


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("fault", [full, interrupted])
@pytest.mark.parametrize(("module", "function"), STAGES, ids=[name for _, name in STAGES])
def test_nothing_is_left_half_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    function: str,
    fault: Callable[..., None],
    shared: bool,
) -> None:
    if shared and function == "exchange":
        function = "sync_folder"
    out, program = old_and_new(tmp_path)
    if shared:
        (out / "notes.txt").write_text("mine")
    before = tree(tmp_path)
    monkeypatch.setattr(module, function, fault)
    with pytest.raises((WriteError, KeyboardInterrupt)) as caught:
        program.save(out)
    if fault is full:
        assert "disk is full" in str(caught.value)
        assert "bytes free" in str(caught.value)
    assert tree(tmp_path) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "src"]


def test_failing_into_a_new_place_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program.load(write_embedded(tmp_path / "src"))
    monkeypatch.setattr(saving, "_write_file", full)
    with pytest.raises(WriteError, match="disk is full"):
        program.save(tmp_path / "a/b/out")
    assert [p.name for p in tmp_path.iterdir()] == ["src"]


def test_interrupt_between_the_renames_finishes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, program = old_and_new(tmp_path)
    (out / "notes.txt").write_text("mine")
    replace, calls = Path.replace, []

    def once(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", once)
    with pytest.raises(KeyboardInterrupt):
        program.save(out)
    assert Program.load(out).graphs["model"].graph[0].name == "renamed"
    assert sorted(tree(out)) == ["model.onnx", "notes.txt", "program.json", "weights.data"]


def test_disk_that_is_too_small_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program.load(write_external(tmp_path / "src"))
    monkeypatch.setattr(copying, "_reflink", lambda *_: False)
    stats = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*tuple(stats)[:4], 0, *tuple(stats)[5:])))
    with pytest.raises(WriteError, match="wanted 8192 bytes for weights"):
        program.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("write", [write_embedded, write_external])
@pytest.mark.parametrize("foreseen", [True, False])
def test_a_disk_that_is_really_full(
    tmp_path: Path, tiny_disk: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., Path], foreseen: bool
) -> None:
    Program.load(write_embedded(tmp_path / "small")).save(tiny_disk / "out")
    before = tree(tiny_disk)
    if not foreseen:  # somebody else fills the disk meanwhile
        for module in (saving, copying):
            monkeypatch.setattr(module, "require_room", lambda *_: None)
    program = Program.load(write(tmp_path / "src", count=20))
    with pytest.raises(WriteError, match=r"disk is full.*bytes free.*81920 bytes"):
        program.save(tiny_disk / "out")
    assert tree(tiny_disk) == before
    assert [p.name for p in tiny_disk.iterdir()] == ["out"]


def test_a_read_only_folder(tmp_path: Path) -> None:
    program = Program.load(write_embedded(tmp_path / "src"))
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o555)
        code = in_child(lambda: program.save(Path(place) / "out"))
        assert code == WriteError.exit_code
        assert list(Path(place).iterdir()) == []


def in_child(work: Callable[[], object]) -> int:
    """Runs ``work`` in a child without root's rights; returns the exit code of its error, 0 without one."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        work()
    except OnnxPassesError as error:
        os._exit(error.exit_code if "Permission denied" in str(error) else 99)
    except BaseException:
        os._exit(98)
    os._exit(0)


KILLED = """
import os, signal, sys
from onnx_llm_passes.ir.serialization import atomic_folder as outputs
from onnx_llm_passes.ir.program.program import Program

program = Program.load(sys.argv[1])
program.graphs["model"].graph[0].name = "renamed"
if sys.argv[3] == "publish":
    outputs.exchange = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
moment = lambda label, done, total: label == sys.argv[3] and os.kill(os.getpid(), signal.SIGKILL)
program.save(sys.argv[2], on_progress=moment)
"""


@pytest.mark.parametrize("moment", ["weights.data", "model.onnx", "publish"])
def test_a_killed_run_leaves_the_old_whole(tmp_path: Path, moment: str) -> None:
    out, program = old_and_new(tmp_path)
    before = tree(out)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "src/model.onnx"), str(out), moment]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == -signal.SIGKILL
    assert tree(out) == before
    assert any(".partial-" in p.name for p in tmp_path.iterdir())
    program.save(out)  # the next run removes what the killed one left
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "src"]
    assert Program.load(out).graphs["model"].graph[0].name == "renamed"


def test_leftovers_of_living_processes_stay(tmp_path: Path) -> None:
    out, program = old_and_new(tmp_path)
    (tmp_path / f".out.partial-{os.getppid()}").mkdir()
    (tmp_path / ".out2.partial-999999999").mkdir()
    program.save(out)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f".out.partial-{os.getppid()}",
        ".out2.partial-999999999",
        "out",
        "src",
    ]


def test_exchange_without_help_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs.ctypes, "CDLL", lambda *_, **__: object())
    out, program = old_and_new(tmp_path)
    program.save(out)
    assert Program.load(out).graphs["model"].graph[0].name == "renamed"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "src"]


# what was written is proved ------------------------------------------------------------------------


def test_a_graph_that_the_checker_refuses_is_not_written(tmp_path: Path) -> None:
    out, program = old_and_new(tmp_path)
    before = tree(out)
    program.graphs["model"].graph[0].attributes["surprise"] = ir.AttrInt64("surprise", 1)
    with pytest.raises(WriteError, match=r"graph 'model'.*checker.*surprise"):
        program.save(out)
    assert tree(out) == before


def test_contributed_operators_in_the_standard_domain_pass(tmp_path: Path) -> None:
    model = chain([onnx.numpy_helper.from_array(np.ones(WIDTH, np.float32), "w")])
    model.graph.node.append(onnx.helper.make_node("SimplifiedLayerNormalization", ["x", "w"], ["z"], "norm"))
    onnx.save(model, tmp_path / "m.onnx")
    program = Program.load(tmp_path / "m.onnx")
    program.save(tmp_path / "out")
    assert sorted(tree(tmp_path / "out")) == ["m.onnx", "program.json", "weights.data"]
    program.graphs["m"].graph[0].attributes["surprise"] = ir.AttrInt64("surprise", 1)
    with pytest.raises(WriteError, match="surprise"):
        program.save(tmp_path / "out")


def test_every_sample_saves_loads_and_runs(tmp_path: Path) -> None:
    place = os.environ.get("ONNX_PASSES_MODELS")
    if not place:
        pytest.skip("ONNX_PASSES_MODELS names no folder of exported models")
    files = sorted(Path(place).glob("*/*.onnx"))
    assert files
    for file in files:
        out = tmp_path / file.parent.name / file.stem
        program = Program.load(file)
        program.save(out)
        again = Program.load(out)
        before, after = (p.graphs[file.stem].graph for p in (program, again))
        assert [n.name for n in before] == [n.name for n in after]
        assert [v.name for v in before.outputs] == [v.name for v in after.outputs]
