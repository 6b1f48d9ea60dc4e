"""The files that sentence-transformers puts beside a model say how its vectors are pooled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..core.errors import InputError
from .strict import StrictReader

READER = StrictReader("a configuration of sentence-transformers", InputError, max_bytes=1 << 20)
_MODES = {  # keys of 1_Pooling/config.json (sentence-transformers 5.1, models/Pooling.py) -> pool's kinds
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_weightedmean_tokens": "weighted-mean",
    "pooling_mode_lasttoken": "last",
}
_NAMED = {"cls": "cls", "mean": "mean", "max": "max", "weightedmean": "weighted-mean", "lasttoken": "last"}
MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class SentenceConfig:
    """What the files say: the pooling, whether vectors get length one, and which files were read."""

    kind: str
    normalize: bool
    read: tuple[Path, ...]


def find_sentence_config(source: Path) -> Path | None:
    """The folder with ``modules.json`` that a model's file or folder belongs to: its own, or above an ``onnx`` one."""
    folder = source if source.is_dir() else source.parent
    folders = [folder, folder.parent] if folder.name == "onnx" else [folder]
    return next((found for found in folders if (found / "modules.json").is_file()), None)


def read_sentence_config(folder: Path) -> SentenceConfig:
    """What ``modules.json`` and the pooling's ``config.json`` in ``folder`` say.

    Raises:
        InputError: a file that is missing or no JSON, a module beside the three, a pooling of a kind not known.
    """
    path = folder / "modules.json"
    modules = _modules(path)
    names = [name for name, _ in modules]
    strange = [name for name in names if name not in MODULES]
    if strange or names != [name for name in MODULES if name in names] or "Pooling" not in names:
        raise InputError(
            "the model is more, or less, than rows, pooling and norm", where=str(path), found=", ".join(names),
            wanted=", ".join(MODULES), hint="Say the pooling: kind=mean, for instance.",
        )  # fmt: skip
    inside = next(place for name, place in modules if name == "Pooling")
    config = _inside(folder, inside, path) / "config.json"
    return SentenceConfig(_kind(config), "Normalize" in names, (path, config))


def _modules(path: Path) -> list[tuple[str, str]]:
    """The class and folder of each module, in their order."""
    found: Any = READER.load_json(READER.read_text(path), where=str(path))
    entries = cast("list[Any]", found) if isinstance(found, list) else []
    modules: list[tuple[str, str]] = []
    for entry in entries:
        fields = _fields(entry)
        kind, place = fields.get("type"), fields.get("path", "")
        if not isinstance(kind, str) or not isinstance(place, str):
            raise InputError("a module has no type or path", where=str(path), found=str(list(fields))[:120])
        modules.append((kind.rpartition(".")[2], place))
    if not modules:
        raise InputError("lists no modules", where=str(path))
    return modules


def _fields(found: object) -> dict[str, Any]:
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _inside(folder: Path, place: str, where: Path) -> Path:
    parts = Path(place).parts
    if not place or Path(place).is_absolute() or ".." in parts:
        raise InputError("a module lies outside the folder", where=str(where), found=place[:120])
    return folder / place


def _kind(path: Path) -> str:
    found: Any = READER.load_json(READER.read_text(path), where=str(path))
    fields = _fields(found)
    modes = [key for key, value in fields.items() if key.startswith("pooling_mode_") and value is True]
    named: Any = fields.get("pooling_mode")
    kinds = [_MODES.get(mode) for mode in modes] + ([_NAMED.get(str(named))] if named is not None else [])
    shown = ", ".join([*modes, *([f"pooling_mode={named!r}"] if named is not None else [])])[:160]
    if len(kinds) != 1 or kinds[0] is None:
        raise InputError(
            "a pooling of a kind not known", where=str(path), found=shown or "no mode",
            wanted=f"one of {', '.join(_MODES)}", hint="Say the pooling: kind=mean, for instance.",
        )  # fmt: skip
    if fields.get("include_prompt") is False:
        raise InputError(
            "the pooling leaves out the rows of a prompt, which no input tells", where=str(path),
            found="include_prompt=false", hint="Say the pooling: kind=mean, for instance.",
        )  # fmt: skip
    return kinds[0]
