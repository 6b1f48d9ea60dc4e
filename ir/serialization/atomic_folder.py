"""The folder that a program is saved into: built aside, then put in place so that no moment shows half a program."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import OutputError
from .index import INDEX_NAME, listed_files
from .journal import Journal, commit, complete, sync_folder

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


@dataclass(frozen=True)
class Output:
    """Where a program goes: ``folder`` without links, and what may be written there.

    Attributes:
        folder: The folder.
        shared: True where it holds more than an earlier program: a journal puts files in, nothing else is touched.
        listed: Names that the folder's own program.json lists, itself included.
        models: Model files that the program was read from.
        data: Files of weights that the program refers to.
    """

    folder: Path
    shared: bool
    listed: frozenset[str]
    models: frozenset[Path]
    data: frozenset[Path]

    @property
    def staging(self) -> Path:
        """The folder that this process builds in."""
        return _beside(self.folder, self.shared) / f".{self.folder.name}.partial-{os.getpid()}"

    def taken(self) -> set[str]:
        """Names in the folder that a new file of weights must not get."""
        if not self.shared:
            return set()
        return {p.name for p in self.folder.iterdir() if p.name not in self.listed or self._real(p.name) in self.data}

    def check(self, names: Sequence[str], *, force: bool) -> None:
        """Raises OutputError where a file that must stay bears one of ``names``."""
        if not self.shared:
            return
        for name in names:
            path = self.folder / name
            if os.path.lexists(path):
                self._check_one(path, self._real(name), force=force)

    def _check_one(self, path: Path, real: Path, *, force: bool) -> None:
        if real in self.data:
            raise OutputError(
                "is the weights file that the program refers to, and is never overwritten",
                where=str(path),
                hint=_ELSEWHERE,
            )
        if path.is_dir():
            raise OutputError("is a folder, where a file is to be written", where=str(path), hint=_ELSEWHERE)
        if force:
            return
        if real in self.models:
            raise OutputError(
                "is the model that was read", where=str(path), hint=f"{_ELSEWHERE}, or pass --force to overwrite it."
            )
        if path.name not in self.listed:
            raise OutputError(
                f"exists and no {INDEX_NAME} lists it",
                where=str(path),
                hint=f"{_ELSEWHERE}, or pass --force to overwrite it.",
            )

    def _real(self, name: str) -> Path:
        return Path(os.path.realpath(self.folder / name))

    @contextmanager
    def building(self) -> Generator[Path]:
        """A new folder to build in, removed afterwards whatever happens; what killed runs left goes first."""
        made = _make_parents(self.folder if self.shared else self.folder.parent)
        clean_leftovers(self.folder, _beside(self.folder, self.shared))
        try:
            self.staging.mkdir()
            yield self.staging
        finally:
            shutil.rmtree(self.staging, ignore_errors=True)
            for folder in reversed(made):  # those that stayed empty: nothing was published
                with suppress(OSError):
                    folder.rmdir()

    def publish(self, names: Sequence[str]) -> None:
        """Puts the built files in place; ``names`` in the order in which they may appear. OSError where that fails."""
        sync_folder(self.staging)
        # from here on the new files appear; syncing their folder afterwards is a courtesy that may fail
        if self.shared:
            self._publish_by_journal(names)
        else:
            self._publish_whole(names)

    def _publish_by_journal(self, names: Sequence[str]) -> None:
        gone = [name for name in sorted(self.listed - set(names)) if self._real(name) not in self.data | self.models]
        commit(self.staging, self.folder, Journal(put=list(names), remove=gone))

    def _publish_whole(self, names: Sequence[str]) -> None:
        if not os.path.lexists(self.folder):
            self.staging.rename(self.folder)
        else:
            shutil.copymode(self.folder, self.staging)
            if exchange(self.staging, self.folder):
                self._clear_old()
            else:
                self._publish_by_journal(names)
        with suppress(OSError):
            sync_folder(self.folder.parent)

    def _clear_old(self) -> None:
        """Removes the old program, which the exchange left in the staging folder; a file that is not its goes back."""
        for name in self.listed:
            with suppress(FileNotFoundError):
                (self.staging / name).unlink()
        for stray in self.staging.iterdir():
            if not os.path.lexists(self.folder / stray.name):
                stray.rename(self.folder / stray.name)


_ELSEWHERE = "Choose another OUT"


def open_output(out: Path, models: Sequence[Path], data: Sequence[Path]) -> Output:
    """Looks at ``out`` and decides how it may be written; OutputError where it is a file or a model hub's cache."""
    folder = Path(os.path.realpath(out))
    if os.path.lexists(folder) and not folder.is_dir():
        raise OutputError(
            "is a file, where a folder is wanted", where=str(out), hint="Give a folder to -o; it may not exist yet."
        )
    if _in_hub(folder):
        raise OutputError("lies in a model hub's cache, which is never written to", where=str(out), hint=_ELSEWHERE)
    if folder.is_dir():
        complete(folder)  # what a killed run left, before anything is compared with its files
    listed = listed_files(folder)
    real_models = frozenset(Path(os.path.realpath(path)) for path in models)
    entries = {p.name for p in folder.iterdir() if not _LEFTOVER.fullmatch(p.name)} if folder.is_dir() else set[str]()
    holds_source = any(path.is_relative_to(folder) for path in (*real_models, *data))
    shared = bool(entries - listed) or holds_source or _is_fixed(folder)
    return Output(folder, shared, listed, real_models, frozenset(data))


def _is_fixed(folder: Path) -> bool:
    """Whether ``folder`` exists and cannot or should not be exchanged for another: a mount, a working folder."""
    if not folder.is_dir():
        return False
    return not os.access(folder.parent, os.W_OK) or _is_mount(folder) or Path.cwd().is_relative_to(folder)


def _is_mount(folder: Path) -> bool:
    if folder.is_mount():
        return True
    try:  # a folder of the same disk bound here is seen nowhere else
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    escaped = str(folder).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    return any(line.split(" ")[4:5] == [escaped] for line in lines)


def _in_hub(folder: Path) -> bool:
    chain = (folder, *folder.parents)
    return any((p / "blobs").is_dir() and (p / "snapshots").is_dir() and (p / "refs").is_dir() for p in chain) or any(
        p.name in ("snapshots", "blobs") and (p.parent / "blobs").is_dir() and (p.parent / "snapshots").is_dir()
        for p in chain
    )


_LEFTOVER = re.compile(r"\..*\.partial-(\d{1,10})", re.DOTALL)


def clean_leftovers(folder: Path, where: Path) -> None:
    """Removes what killed runs that wrote ``folder`` left in ``where``; those of living processes stay."""
    if not where.is_dir():
        return
    for path in where.iterdir():
        match = _LEFTOVER.fullmatch(path.name)
        if match and path.name.startswith(f".{folder.name}.partial-") and not _alive(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def exchange(new: Path, old: Path) -> bool:
    """Swaps two folders at once; False where the system or its file system cannot, and then nothing has changed."""
    libc = ctypes.CDLL(None, use_errno=True)
    rename = getattr(libc, "renameat2", None)
    places = (_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old))
    return rename is not None and rename(*places, _RENAME_EXCHANGE) == 0


def _beside(folder: Path, shared: bool) -> Path:
    return folder if shared else folder.parent


def _make_parents(folder: Path) -> list[Path]:
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return list(reversed(missing))
