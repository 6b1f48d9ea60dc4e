"""A program is read from a file, from the folder of an earlier run, or from models that are in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import onnx
import onnx_ir as ir

from ..core.errors import InputError, expect
from ..serialization.loading import load_graph, load_model, load_proto
from ..serialization.pending import finish_pending
from .program import Origin, Program

if TYPE_CHECKING:
    from ..core.encoding import TensorEncoding
    from ..core.specialization import Specialization
    from .contract import Contract

PathLike = str | os.PathLike[str]
InMemory = onnx.ModelProto | ir.Model
Source = PathLike | InMemory | Mapping[str, "PathLike | InMemory"]
HINT = "Give a path, an onnx.ModelProto, an onnx_ir.Model, or a mapping of names to these."


def load_program(source: Source, *, base_dir: PathLike | None = None, follow_links: bool = False) -> Program:
    """What :meth:`Program.load` does; UsageError for another type, InputError for what cannot be read."""
    if isinstance(source, Mapping):
        return _load_parts(source, base_dir, follow_links=follow_links)
    if isinstance(source, str | os.PathLike):
        return _load_path(Path(source), follow_links=follow_links)
    return Program({"model": in_memory(source, base_dir, follow_links=follow_links)})


def in_memory(source: object, base_dir: PathLike | None = None, *, follow_links: bool = False) -> ir.Model:
    """The graph of a model in memory, checked like one of a file; ``source`` stays as it is."""
    given = _unwrapped(source)
    expect((onnx.ModelProto, ir.Model), given, "Program.load", HINT)
    if isinstance(given, ir.Model):
        return load_model(given)
    folder = None if base_dir is None else Path(base_dir)
    return load_proto(cast("onnx.ModelProto", given), folder, follow_links=follow_links)


def _unwrapped(source: Any) -> object:
    """The model inside an onnxscript function (``to_model_proto``) or a torch ``ONNXProgram`` (``model``)."""
    if isinstance(source, onnx.ModelProto | ir.Model):
        return source
    if callable(getattr(source, "to_model_proto", None)):
        return source.to_model_proto()
    return getattr(source, "model", source)


def _load_parts(parts: Mapping[str, PathLike | InMemory], base_dir: PathLike | None, *, follow_links: bool) -> Program:
    """One program of several graphs, each under the name that it is given."""
    program = Program({})
    for name, part in parts.items():
        if not isinstance(part, str | os.PathLike):
            program.graphs[name] = in_memory(part, base_dir, follow_links=follow_links)
            continue
        loaded = load_graph(Path(part), follow_links=follow_links)
        program.graphs[name] = loaded.model
        program.origins = (*program.origins, Origin(name, Path(part), loaded.sha256))
    if not parts:
        raise InputError("an empty mapping holds no graph", where="Program.load", hint=HINT)
    return program


def _load_path(path: Path, *, follow_links: bool) -> Program:
    is_folder = os.path.isdir(path)  # noqa: PTH112  Path.is_dir raises where a parent may not be read
    finish_pending(path if is_folder else path.parent)
    if not is_folder:
        return _load_files(path, {path.stem: path}, follow_links=follow_links)
    if os.path.lexists(path / "program.json"):
        return _load_saved(path, follow_links=follow_links)
    file = _only_model(path)
    return _load_files(path, {file.stem: file}, follow_links=follow_links)


def _only_model(folder: Path) -> Path:
    files = sorted(p for p in folder.glob("*.onnx") if not p.name.startswith("."))
    if len(files) == 1:
        return files[0]
    if not files:
        raise InputError(
            "holds no .onnx file and no program.json",
            where=str(folder),
            hint="Give the folder of a model, or the file itself.",
        )
    names = ", ".join(p.name for p in files[:8]) + (", …" if len(files) > 8 else "")
    raise InputError(
        f"holds {len(files)} models: {names}", where=str(folder), hint="Give one of the files instead of the folder."
    )


def _load_files(source: Path, files: dict[str, Path], *, follow_links: bool) -> Program:
    loaded = {name: load_graph(file, follow_links=follow_links) for name, file in files.items()}
    return Program(
        graphs={name: item.model for name, item in loaded.items()},
        source=source,
        origins=tuple(Origin(name, files[name], item.sha256) for name, item in loaded.items()),
    )


def _load_saved(folder: Path, *, follow_links: bool) -> Program:
    from ..serialization.index import read_index

    index = read_index(folder)
    files = {entry.name: folder / entry.file for entry in index.graphs}
    program = _load_files(folder, files, follow_links=follow_links)
    for entry, origin in zip(index.graphs, program.origins, strict=True):
        if entry.sha256 != origin.sha256:
            raise InputError(
                f"{entry.file} is not the file that program.json describes",
                where=str(folder),
                hint=f"It was replaced or edited: give {entry.file} itself, or run the pipeline again.",
            )
    program.specializations = _specializations(index.specializations)
    program.custom_io = dict(index.custom_io)
    program.encodings = _encodings(folder, index.encodings)
    program.contracts = [_contract(folder, entry) for entry in index.contracts]
    program.earlier = [*index.earlier, index.provenance]
    program.bound = {entry.name: dict(entry.binding) for entry in index.graphs if entry.binding}
    return program


def _specializations(entries: Sequence[object]) -> list[Specialization]:
    if not entries:
        return []
    from ..core.specialization import read_specialization

    return [read_specialization(entry, index) for index, entry in enumerate(entries)]


def _encodings(folder: Path, entries: Mapping[str, object]) -> dict[str, TensorEncoding]:
    if not entries:
        return {}
    from ..serialization.encoding_entries import from_entries

    return from_entries(entries, f"{folder / 'program.json'}, encodings")


def _contract(folder: Path, entry: Mapping[str, Any]) -> Contract:
    from .contracts.registry import read_contract

    try:
        return read_contract(entry)
    except InputError as error:
        raise InputError(
            f"program.json: {error.what}",
            where=str(folder),
            found=error.found,
            hint="It was edited: run the pipeline again.",
        ) from None
