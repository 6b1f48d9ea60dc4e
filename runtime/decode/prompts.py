"""Reads prompts: a JSON list of token ids, a list of such lists, or an .npy file of one or two dimensions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...ir.core.errors import InputError

MAX_BYTES = 256 << 20
WANTED = "a JSON list of token ids, a list of such lists, or an .npy file of whole numbers"


def read_prompts(path: Path) -> list[list[int]]:
    """The prompts of a file; InputError where it holds none. Nothing in it is executed."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError("is too large for prompts", where=str(path), wanted=f"at most {MAX_BYTES} bytes")
        reader = _READERS.get(path.suffix.lower(), _read_json)
        return reader(path)
    except FileNotFoundError as error:
        raise InputError("no such file", where=str(path), wanted=WANTED) from error
    except (OSError, ValueError, EOFError, RecursionError) as error:
        raise InputError("cannot be read as prompts", where=str(path), found=str(error)[:200], wanted=WANTED) from error


def _read_npy(path: Path) -> list[list[int]]:
    array = np.load(path, allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu" or array.ndim not in (1, 2):
        found = f"{array.dtype} of {array.ndim} dimensions" if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError("holds no token ids", where=str(path), found=found, wanted=WANTED)
    return np.atleast_2d(array).tolist()


def _read_json(path: Path) -> list[list[int]]:
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, list):
        raise InputError("holds no list", where=str(path), found=type(data).__name__, wanted=WANTED)
    rows = data if data and all(isinstance(row, list) for row in data) else [data]
    for number, row in enumerate(rows):
        for at, token in enumerate(row):
            if type(token) is not int:  # true is an int to isinstance
                where = f"{path}, prompt {number}, token {at}"
                raise InputError("is no token id", where=where, found=repr(token)[:80], wanted=WANTED)
    return rows


_READERS: dict[str, Callable[[Path], list[list[int]]]] = {".npy": _read_npy, ".json": _read_json}
