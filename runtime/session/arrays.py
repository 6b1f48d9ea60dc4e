"""Arrays named like inputs are read from an .npz file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from ...ir.core.errors import InputError


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file; InputError where it is none. Nothing in it is executed."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise InputError("no such file", where=str(path), wanted="an .npz file of input arrays") from error
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(
            "cannot be read as an .npz file",
            where=str(path),
            found=str(error)[:200],
            hint="Write it with numpy.savez(file, input_ids=…).",
        ) from error
