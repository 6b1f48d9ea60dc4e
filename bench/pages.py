"""Says how much of a file was touched, by read or by map: its pages in the kernel's cache, before and after."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

WINDOW = 1 << 30


def drop(path: Path) -> None:
    """Asks the kernel to forget the file's pages."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident_bytes(path: Path) -> int:
    """Bytes of the file in the page cache; a run that read or touched a mapping of it leaves some."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        return sum(_window(file.fileno(), start, min(WINDOW, size - start)) for start in range(0, size, WINDOW))


def _window(descriptor: int, start: int, length: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    # Mapped and asked about, never touched: mincore does not load a page.
    with mmap.mmap(descriptor, length, offset=start) as view:
        anchor = ctypes.c_char.from_buffer(view)
        pages = -(-length // mmap.PAGESIZE)
        states = (ctypes.c_ubyte * pages)()
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(anchor)), ctypes.c_size_t(length), states)
        del anchor
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return sum(state & 1 for state in bytes(states)) * mmap.PAGESIZE
