"""Opens the ``tokenizer.json`` beside a model; words become token ids by it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.errors import InputError, UsageError


def find_tokenizer_file(source: Path) -> Path | None:
    """The ``tokenizer.json`` beside a model's file, in its folder, or above a folder named ``onnx``."""
    folder = source if source.is_dir() else source.parent
    folders = [folder, folder.parent] if folder.name == "onnx" else [folder]
    return next((found / "tokenizer.json" for found in folders if (found / "tokenizer.json").is_file()), None)


def find_tokenizer(given: Path | None, *folders: Path) -> Path:
    """The file given, else the first ``tokenizer.json`` in the folders; InputError where there is none."""
    if given is not None:
        return given / "tokenizer.json" if given.is_dir() else given
    for folder in folders:
        if (folder / "tokenizer.json").is_file():
            return folder / "tokenizer.json"
    wanted = " or ".join(str(folder / "tokenizer.json") for folder in folders)
    raise InputError("no tokenizer.json", wanted=wanted, hint="Give it with --tokenizer.")


def open_tokenizer(path: Path, instead: str) -> Any:
    """The tokenizer of a file, its own padding and truncation off; InputError says what to give ``instead``.

    It is one of the package `tokenizers` (0.20 or newer), which the extra ``text`` installs.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        hint = f"pip install 'onnx-llm-passes[text]', or give {instead}."
        raise InputError("the tokenizers package is not installed", where=str(path), hint=hint) from None
    try:
        loaded: Any = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises nothing narrower
        raise InputError("is no tokenizer", where=str(path), found=" ".join(str(error).split())[:160]) from None
    loaded.no_padding()
    loaded.no_truncation()
    return loaded


def token_ids(path: Path, texts: Sequence[str]) -> list[int]:
    """The one token of each text.

    Raises:
        InputError: no tokenizer, or the ``tokenizers`` package is not there.
        UsageError: a text that is no token, or more than one.
    """
    loaded = open_tokenizer(path, "ids: tokens=9693,2152")
    ids: list[int] = []
    for text in texts:
        found: list[int] = list(loaded.encode(text, add_special_tokens=False).ids)
        unknown: str | None = getattr(loaded.model, "unk_token", None)
        if len(found) != 1 or (unknown is not None and found == [loaded.token_to_id(unknown)] and text != unknown):
            raise UsageError(
                "this text is not one token", where=str(path), found=f"{text!r}: {found}", wanted="one id",
                hint="Give the ids themselves: tokens=9693,2152.",
            )  # fmt: skip
        ids += found
    return ids
