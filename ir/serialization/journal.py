"""A journal makes many renames one step: a folder that holds other files too gets a program whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..core.errors import InputError
from .index import INDEX_NAME, FileName, listed_files
from .pending import PENDING

JOURNAL_NAME = "journal.json"
MAX_JOURNAL_BYTES = 1 << 20
LOCK_TRIES, LOCK_SECONDS = 100, 0.1  # a writer holds the lock for a few renames


class Journal(BaseModel):
    """What is left to do with a pending folder: ``put`` its files in place in this order, then ``remove`` others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    put: list[FileName]
    remove: list[FileName] = []


def commit(staging: Path, folder: Path, journal: Journal) -> None:
    """Puts the files built in ``staging`` into ``folder``; from the one rename on, any later run completes the rest.

    Before it the old program is whole; after it the new one is: whoever opens the folder calls :func:`complete`.
    OSError where the system refuses; an interrupt after the rename is raised when everything is in place.
    """
    _write_synced(staging / JOURNAL_NAME, journal.model_dump_json().encode())
    sync_folder(staging)
    with _locked(folder):
        _complete(folder)  # of a run that was killed meanwhile
        staging.rename(folder / PENDING)
        with suppress(OSError):
            sync_folder(folder)
        try:
            _complete(folder)
        except KeyboardInterrupt:  # a few renames are left: finish, then stop
            _complete(folder)
            raise


def complete(folder: Path) -> bool:
    """Finishes what a killed run left pending in ``folder``; True where there was something.

    Raises InputError where it cannot: the journal is damaged, or the folder may not be written.
    """
    if not os.path.lexists(folder / PENDING):
        return False
    try:
        with _locked(folder):
            _complete(folder)
    except OSError as error:
        raise InputError(
            f"a run that wrote this folder was cut short and cannot be completed: {error.strerror or error}",
            where=str(folder),
            hint="Make the folder writable, then run any command on it, or the same run again.",
        ) from error
    return True


def _complete(folder: Path) -> None:
    """Every step may have been done before: the steps are the same from wherever a run was killed."""
    pending = folder / PENDING
    if not os.path.lexists(pending):
        return
    journal = _read(pending)
    listed = listed_files(folder)  # the old program's, until the new index comes last
    if (pending / INDEX_NAME).exists():
        _put(pending, folder, [name for name in journal.put if name != INDEX_NAME])
        for name in journal.remove:
            if name in listed:
                (folder / name).unlink(missing_ok=True)
        _put(pending, folder, [INDEX_NAME])
    with suppress(OSError):
        sync_folder(folder)
    _clear(pending)


def _put(pending: Path, folder: Path, names: Sequence[str]) -> None:
    for name in names:
        with suppress(FileNotFoundError):  # moved before the run was killed
            (pending / name).replace(folder / name)


def _clear(pending: Path) -> None:
    """Removes what is left of the pending folder, its journal last."""
    for path in pending.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != JOURNAL_NAME:
            path.unlink()
    (pending / JOURNAL_NAME).unlink(missing_ok=True)
    pending.rmdir()


def _read(pending: Path) -> Journal:
    """The journal of a pending folder; one without any was complete. InputError where it is none of ours."""
    path = pending / JOURNAL_NAME
    if pending.is_symlink() or not pending.is_dir() or path.is_symlink():
        raise _damaged(pending)
    if not path.exists():
        if any(pending.iterdir()):
            raise _damaged(pending)
        return Journal(put=[])
    if path.stat().st_size > MAX_JOURNAL_BYTES:
        raise _damaged(pending)
    try:
        journal = Journal.model_validate_json(path.read_bytes())
    except (ValidationError, RecursionError) as error:
        raise _damaged(pending) from error
    if any(not (pending / name).is_file() or (pending / name).is_symlink() for name in _staged(pending, journal)):
        raise _damaged(pending)
    return journal


def _staged(pending: Path, journal: Journal) -> list[str]:
    return [name for name in journal.put if os.path.lexists(pending / name)]


def _damaged(pending: Path) -> InputError:
    return InputError(
        "was left by a run that was cut short, and is damaged",
        where=str(pending),
        hint="Remove it, then run the pipeline again.",
    )


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Waits until the names in ``folder`` are on the disk; OSError where the system refuses."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    """One writer at a time; a lock that stays taken, or a file system without locks, does not stop the work."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        for _ in range(LOCK_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(LOCK_SECONDS)
            except OSError:
                break
            else:
                break
        yield
    finally:
        os.close(descriptor)
