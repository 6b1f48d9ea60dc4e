"""One large file is copied by shared blocks where the file system can, else only where it has no holes."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from .excerpt import Part, size_of

Progress = Callable[[str, int, int], None]
"""Called with what is being written, bytes done, bytes in all."""

FICLONE = 0x40049409  # linux/fs.h; glibc has no name for it
CHUNK = 64 << 20
_NO_FAST_COPY = frozenset({errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.ENOTTY})


def no_progress(label: str, done: int, total: int) -> None:
    """The progress of a caller who asked for none."""


def copy_parts(
    source: Path, target: Path, parts: Sequence[Part], label: str, on_progress: Progress = no_progress
) -> int:
    """Copies these parts of ``source`` to the new file ``target``, holes kept, synced; returns the source's size."""
    total = size_of(parts)
    with source.open("rb", buffering=0) as read, target.open("xb", buffering=0) as write:
        on_progress(label, 0, total)
        require_room(target.parent, min(total, os.fstat(read.fileno()).st_blocks * 512))
        os.truncate(write.fileno(), total)
        for part in parts:
            shift = part.target - part.start
            for start, end in _extents(read.fileno(), part.end, part.start):
                tell = partial(_tell_shifted, on_progress, label, shift, total)
                _copy_range(read.fileno(), write.fileno(), (start, min(end, part.end)), shift, tell)
        os.fsync(write.fileno())
        on_progress(label, total, total)
        return os.fstat(read.fileno()).st_size


def _tell_shifted(on_progress: Progress, label: str, shift: int, total: int, done: int) -> None:
    on_progress(label, done + shift, total)


def copy_file(source: Path, target: Path, label: str, on_progress: Progress = no_progress) -> int:
    """Copies ``source`` to the new file ``target``, holes kept, synced; returns its size. OSError where it cannot."""
    with source.open("rb", buffering=0) as read, target.open("xb", buffering=0) as write:
        size = os.fstat(read.fileno()).st_size
        on_progress(label, 0, size)
        if not _reflink(read.fileno(), write.fileno()):
            require_room(target.parent, os.fstat(read.fileno()).st_blocks * 512)
            os.truncate(write.fileno(), size)
            for start, end in _extents(read.fileno(), size):
                _copy_range(read.fileno(), write.fileno(), (start, end), 0, lambda done: on_progress(label, done, size))
        os.fsync(write.fileno())
        on_progress(label, size, size)
    return size


def require_room(folder: Path, needed: int) -> None:
    """Raises OSError ENOSPC before the work where ``folder`` has fewer than ``needed`` bytes free."""
    stats = os.statvfs(folder)
    if needed > stats.f_bavail * stats.f_frsize:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _reflink(source: int, target: int) -> bool:
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError:
        return False
    return True


def _extents(source: int, size: int, position: int = 0) -> Iterator[tuple[int, int]]:
    """The (start, end) of each stretch of data from ``position`` on; all of it where the system knows no holes."""
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            yield position, size
            return
        if start >= size:
            return
        position = os.lseek(source, start, os.SEEK_HOLE)
        yield start, position


def _copy_range(source: int, target: int, where: tuple[int, int], shift: int, tell: Callable[[int], None]) -> None:
    """Copies the bytes from ``where[0]`` to ``where[1]``, to ``shift`` bytes behind that place."""
    start, end = where
    while start < end:
        done = _copy_chunk(source, target, (start, start + shift), min(CHUNK, end - start))
        if not done:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        start += done
        tell(start)


def _copy_chunk(source: int, target: int, offsets: tuple[int, int], count: int) -> int:
    offset, at = offsets
    with contextlib.suppress(AttributeError):  # no copy_file_range on this system
        try:
            return os.copy_file_range(source, target, count, offset, at)
        except OSError as error:
            if error.errno not in _NO_FAST_COPY:
                raise
    data = os.pread(source, min(count, 8 << 20), offset)
    view = memoryview(data)
    while view:
        written = os.pwrite(target, view, at)
        view, at = view[written:], at + written
    return len(data)
