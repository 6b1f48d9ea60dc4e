"""A folder tells whether a killed run left renames to do, before anything is loaded that can do them."""

from __future__ import annotations

import os
from pathlib import Path

PENDING = ".onnx-passes-pending"


def finish_pending(folder: Path) -> None:
    """Completes what a killed run left in ``folder``; InputError where that cannot be done.

    The journal is read by pydantic, whose import costs as much as reading a small graph: only where there is one.
    """
    if os.path.lexists(folder / PENDING):
        from .journal import complete

        complete(folder)
