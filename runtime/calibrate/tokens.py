"""Reads the texts of a calibration: token ids of .npz, .npy and .jsonl files, or text with its tokenizer."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.core.errors import InputError
from ...ir.interface.roles import find_tables
from ...ir.program.program import Program
from ...ir.serialization.tokenizer_file import open_tokenizer

MAX_BYTES = 1 << 30
MAX_ID = 1 << 31
RANDOM_TEXTS, RANDOM_LENGTH, LEAST_IDS = 4, 24, 64
Samples = list[np.ndarray]
Encode = Callable[[str], list[int]]


def read_tokens(path: Path, *, limit: int | None = None, tokenizer: Path | None = None) -> Samples:
    """The samples of a file, padding taken off; InputError where it is none, naming the line or array."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError("is too large for tokens", where=str(path), wanted=f"at most {MAX_BYTES} bytes")
        samples = _READERS.get(path.suffix, _read_text)(path, tokenizer)
    except FileNotFoundError as error:
        raise InputError("no such file", where=str(error.filename or path), wanted="tokens") from None
    except (OSError, ValueError, OverflowError, MemoryError, EOFError, zipfile.BadZipFile) as error:
        raise InputError("cannot be read as tokens", where=str(path), found=str(error)[:200]) from None
    kept = [sample for sample in samples if sample.size][:limit]
    if not kept:
        raise InputError("holds no token", where=str(path))
    return kept


def random_tokens(program: Program, number: int | None = None) -> Samples:
    """Texts of random ids within the program's vocabulary, the same in every run."""
    sizes = [size for model in program.graphs.values() for size in find_tables(model).values()]
    random = np.random.default_rng(0)
    return [random.integers(0, min(sizes, default=LEAST_IDS), RANDOM_LENGTH) for _ in range(number or RANDOM_TEXTS)]


def _read_npz(path: Path, tokenizer: Path | None) -> Samples:
    with zipfile.ZipFile(path) as archive:  # before anything is unpacked
        if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
            raise InputError("unpacks to too much for tokens", where=str(path), wanted=f"at most {MAX_BYTES} bytes")
    with np.load(path, allow_pickle=False) as stored:
        names = [name for name in stored.files if name != "attention_mask"]
        if "input_ids" not in names and len(names) != 1:
            raise InputError("holds no input_ids", where=str(path), found=", ".join(stored.files)[:120])
        ids = stored["input_ids" if "input_ids" in names else names[0]]
        mask = stored["attention_mask"] if "attention_mask" in stored.files else None
    return _rows(ids, mask, str(path))


def _read_npy(path: Path, tokenizer: Path | None) -> Samples:
    return _rows(np.load(path, allow_pickle=False), None, str(path))


def _rows(ids: np.ndarray, mask: np.ndarray | None, where: str) -> Samples:
    """One sample a row; what the mask hides, or a negative id, is padding."""
    if ids.ndim not in (1, 2) or ids.dtype.kind not in "iu":
        raise InputError("holds no rows of token ids", where=where, found=f"{ids.dtype} {list(ids.shape)}")
    if ids.dtype.kind == "u" and ids.max(initial=0) > np.iinfo(np.int64).max:
        raise InputError("holds a token that no vocabulary has", where=where, found=ids.max())
    rows = np.atleast_2d(ids).astype(np.int64)
    kept = rows >= 0 if mask is None else np.atleast_2d(mask).astype(bool)
    if kept.shape != rows.shape:
        raise InputError("attention_mask has another shape than input_ids", where=where, found=list(kept.shape))
    return [row[keep] for row, keep in zip(rows, kept, strict=True)]


def _read_jsonl(path: Path, tokenizer: Path | None) -> Samples:
    samples: Samples = []
    encode: Encode | None = None
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            found: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError("is no JSON", where=where, found=str(error)[:120]) from None
        if isinstance(found, dict):
            found = found.get("input_ids", found.get("text"))
        if isinstance(found, str):
            encode = encode or _tokenizer(path, tokenizer)
            found = encode(found)
        if not isinstance(found, list) or not all(type(item) is int and abs(item) < MAX_ID for item in found):
            raise InputError("is no list of token ids, nor a text", where=where, found=repr(found)[:80])
        samples.append(np.array(found, np.int64))
    return samples


def _read_text(path: Path, tokenizer: Path | None) -> Samples:
    """One sample a line that is not empty."""
    lines = [line for line in _lines(path) if line.strip()]
    encode = _tokenizer(path, tokenizer)
    return [np.array(encode(line), np.int64) for line in lines]


def _lines(path: Path) -> list[str]:
    """By line feeds alone: what else Unicode calls a line end may stand inside a text."""
    return path.read_text(encoding="utf-8").split("\n")


def _tokenizer(path: Path, given: Path | None) -> Encode:
    file = given or path.with_name("tokenizer.json")
    if not file.is_file():
        hint = "Give it with --tokenizer, or give token ids (.npz, .npy, .jsonl)."
        raise InputError("holds text, and there is no tokenizer.json", where=str(path), wanted=str(file), hint=hint)
    loaded = open_tokenizer(file, "token ids (.npz, .npy, .jsonl)")
    return lambda text: list(loaded.encode(text).ids)


_READERS: dict[str, Callable[[Path, Path | None], Samples]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".jsonl": _read_jsonl,
}
