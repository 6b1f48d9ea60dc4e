"""Runs killed before each step that they take in the file system: the old program or the new one, whole, always."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest

from onnx_llm_passes.ir.core.errors import InputError, OnnxPassesError
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.serialization.index import read_index
from onnx_llm_passes.ir.serialization.journal import JOURNAL_NAME, PENDING, complete

from .weight_models import chain, expected, run, tree, values, write_embedded, write_external

STEPS = ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync", "link")


def _save(source: Path, out: Path, *, names: int, force: bool = False) -> None:
    """Saves ``source`` as ``names`` graphs, so that a save has many files to put in place."""
    program = Program.load(source)
    model = next(iter(program.graphs.values()))
    program.graphs = {f"g{i}": model for i in range(names)}
    program.save(out, force=force)


def _killed(work: Callable[[], None], step: int) -> bool:
    """Runs ``work`` in a child that is killed before its ``step``-th change of files; False where it ended."""
    pid = os.fork()
    if pid == 0:
        _arm(step)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def _arm(step: int) -> None:
    """Counts every change of the file system in this process, and kills it before the ``step``-th."""
    left = [step]

    def watched(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for name in STEPS:
        setattr(os, name, watched(getattr(os, name)))
    from onnx_llm_passes.ir.serialization import atomic_folder

    atomic_folder.exchange = watched(atomic_folder.exchange)  # type: ignore[assignment]  # a call of the C library


def other_weights(folder: Path, width: int = 1024) -> Path:
    """A model of the same sizes as ``write_embedded`` makes, with other weights."""
    folder.mkdir(parents=True)
    tensors = [onnx.numpy_helper.from_array(array * 3, f"w{i}") for i, array in enumerate(values(2, width))]
    onnx.save(chain(tensors), folder / "model.onnx")
    return folder / "model.onnx"


def _own(root: Path) -> Path:
    return root / "out"


def _with_notes(root: Path) -> Path:
    (root / "out/notes.txt").write_text("mine")
    return root / "out"


def _beside_a_model(root: Path) -> Path:
    write_external(root / "out", name="theirs.onnx", data="theirs.data")
    return root / "out"


PLACES: dict[str, Callable[[Path], Path]] = {"own": _own, "notes": _with_notes, "a model": _beside_a_model}
COUNTS = {"as many": (3, 3), "more": (1, 4), "fewer": (5, 1), "many": (9, 9)}


def _theirs(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(out).items() if name.startswith(("notes", "theirs"))}


def _state(out: Path) -> tuple[list[str], float]:
    """What a folder says: its graphs' names, and what the first of them computes; raises where it is not whole."""
    index = read_index(out, whole=True)
    program = Program.load(out)
    assert list(program.graphs) == [graph.name for graph in index.graphs]
    sums = {float(run(out / graph.file)[0]) for graph in index.graphs}
    assert len(sums) == 1, "graphs of two programs"
    return list(program.graphs), sums.pop()


MANY = 200


@pytest.mark.slow
def test_killed_before_each_step(tmp_path: Path) -> None:
    """In a folder of its own, and in ones shared with files of others: old or new at every point, of which are many."""
    points = [_kill_each(tmp_path / place / counts, place, counts, every=1) for place in PLACES for counts in COUNTS]
    assert min(points) > 0
    assert sum(points) >= MANY, points


@pytest.mark.parametrize("place", ["notes", "a model"])
def test_killed_before_some_steps(tmp_path: Path, place: str) -> None:
    _kill_each(tmp_path, place, "more", every=4)


def _kill_each(tmp_path: Path, place: str, counts: str, every: int) -> int:
    """Kills before the steps of a save, ``every`` so many, until none is left to kill at; how many were."""
    tmp_path.mkdir(parents=True, exist_ok=True)
    first, second = write_embedded(tmp_path / "v1"), other_weights(tmp_path / "v2")
    before, after = COUNTS[counts]
    sums = {1.0 * expected()[0]: before, 3.0 * expected()[0]: after}
    step = 0
    while True:
        root = tmp_path / f"at{step}"
        _save(first, root / "out", names=before)
        out = PLACES[place](root)
        theirs = _theirs(out)
        killed = _killed(lambda out=out: _save(second, out, names=after), step)
        names, total = _state_of_copy(out)
        assert sums[total] == len(names), f"killed before step {step}: a mix"
        assert _theirs(out) == theirs
        _save(second, out, names=after)  # the same command again
        assert _state(out) == ([f"g{i}" for i in range(after)], 3.0 * expected()[0])
        assert _theirs(out) == theirs
        assert not [p for p in root.rglob("*") if PENDING in p.name or ".partial-" in p.name]
        if not killed:
            break
        step += every
    assert step >= 5 * every, "no step was killed"
    return step // every


def _state_of_copy(out: Path) -> tuple[list[str], float]:
    """What a reader finds who comes after the kill; on a copy, so that the run that follows finds what was left."""
    copy = out.with_name("copy")
    shutil.copytree(out, copy)
    found = _state(complete_first(copy))
    shutil.rmtree(copy)
    return found


def complete_first(out: Path) -> Path:
    """Opens ``out`` as any command does, which completes it."""
    Program.load(out)
    return out


def test_a_folder_of_the_source_is_whole_at_every_step(tmp_path: Path) -> None:
    """OUT is the model's own folder and the model is replaced: it is read back as the old one or the new one."""
    step, seen = 0, set[float]()
    while True:
        folder = tmp_path / f"at{step}"
        source = write_embedded(folder)
        other = other_weights(folder / "v2")
        killed = _killed(lambda other=other, folder=folder: Program.load(other).save(folder, force=True), step)
        Program.load(source)
        seen.add(float(run(source)[0]))
        if not killed:
            break
        step += 2
    assert seen == {1.0 * expected()[0], 3.0 * expected()[0]}


def test_weights_of_equal_size_are_told_apart(tmp_path: Path) -> None:
    for name, source in (("a", write_embedded(tmp_path / "v1")), ("b", other_weights(tmp_path / "v2"))):
        Program.load(source).save(tmp_path / name)
    (tmp_path / "b/weights.data").replace(tmp_path / "a/weights.data")
    with pytest.raises(InputError, match=r"weights\.data is missing or was changed"):
        Program.load(tmp_path / "a")


@pytest.fixture
def pending(tmp_path: Path) -> Iterator[Path]:
    """A saved folder in which a run was cut short, its journal still to be written."""
    Program.load(write_embedded(tmp_path / "v1")).save(tmp_path / "out")
    (tmp_path / "out" / PENDING).mkdir()
    yield tmp_path / "out" / PENDING


JOURNALS = {
    "none": None,
    "no JSON": "{",
    "a path": '{"put": ["../../stolen"], "remove": []}',
    "a path to remove": '{"put": [], "remove": ["../v1/model.onnx"]}',
    "other keys": '{"put": [], "run": "rm"}',
    "nesting": "[" * 100_000,
}


@pytest.mark.parametrize("kind", JOURNALS)
def test_a_damaged_journal_is_refused(pending: Path, kind: str) -> None:
    text = JOURNALS[kind]
    (pending / "program.json").write_text("{}")
    if text is not None:
        (pending / JOURNAL_NAME).write_text(text)
    before = tree(pending.parent.parent)
    with pytest.raises(InputError, match="is damaged") as caught:
        complete(pending.parent)
    assert PENDING in str(caught.value)
    assert tree(pending.parent.parent) == before


def test_a_link_is_never_put_in_place(pending: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (pending / "model.onnx").symlink_to(tmp_path / "secret")
    (pending / JOURNAL_NAME).write_text('{"put": ["model.onnx"]}')
    with pytest.raises(InputError, match="is damaged"):
        Program.load(pending.parent)


def test_a_journal_removes_only_what_the_index_lists(pending: Path) -> None:
    (pending.parent / "mine.txt").write_text("mine")
    (pending / "program.json").write_bytes((pending.parent / "program.json").read_bytes())
    (pending / JOURNAL_NAME).write_text('{"put": ["program.json"], "remove": ["mine.txt"]}')
    assert complete(pending.parent)
    assert (pending.parent / "mine.txt").read_text() == "mine"
    assert not pending.exists()


OUTSIDE = """
import sys
from onnx_llm_passes.cli.app import run
model, out = sys.argv[1:]
assert run(["run", "single-shot", model, "-o", out]) == 0
assert run(["verify", model, out]) == 0
assert run(["run", "strip-states{layers=9}", model, "-o", out]) == 1
"""


def test_nothing_is_written_outside_the_folders_named(tmp_path: Path) -> None:
    from .cli_tools import sample

    model = sample(tmp_path / "in")
    places = {name: str(tmp_path / name) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "TEMP", "TMP")}
    for place in places.values():
        Path(place).mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "XDG_"))} | places
    before = set(tmp_path.rglob("*"))
    work = [sys.executable, "-c", OUTSIDE, str(model), str(tmp_path / "out")]
    done = subprocess.run(work, env=environment, cwd=tmp_path / "HOME", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    new = {path.relative_to(tmp_path).parts[0] for path in set(tmp_path.rglob("*")) - before}
    assert new == {"out"}


def test_a_folder_that_may_not_be_completed_is_named(pending: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pending / JOURNAL_NAME).write_text('{"put": []}')

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rmdir", refuse)
    with pytest.raises(OnnxPassesError, match="cut short and cannot be completed: Permission denied"):
        complete(pending.parent)
