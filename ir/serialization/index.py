"""``program.json``: what a saved folder holds, and how it came to be; read as hostile, written in a fixed order."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..core.errors import InputError

INDEX_NAME = "program.json"
FORMAT = "onnx-llm-passes/program"
SCHEMA_VERSION = 2
"""2: contracts are typed entries. In 1 they were sentences, which only the passes of that version could tell apart."""
MAX_INDEX_BYTES = 64 << 20
READ_BYTES = 32 << 20  # weights up to this size are read when their program is loaded: a few hundredths of a second
MAX_CONTRACTS = 1 << 16


def plain_name(name: str) -> str:
    """``name`` itself; ValueError where it is not the name of a file directly inside a folder."""
    if (
        not name
        or name in (".", "..")
        or len(name.encode(errors="surrogatepass")) > 255
        or any(c in name for c in "/\\\0")
    ):
        raise ValueError("not a plain file name")
    return name


FileName = Annotated[str, AfterValidator(plain_name)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Port(_Entry):
    """An input or output of a graph; ``shape`` holds integers, dim_params as written, and None for unknown."""

    name: str
    dtype: str | None = None
    shape: list[int | str | None] | None = None
    role: str | None = None


class StateEntry(_Entry):
    """A carried state of a graph."""

    name: str
    layout: str
    pairing: str
    layer: int | None = None
    kind: str = "state"
    input: str | None = None
    output: str | None = None
    axis: int | None = None


class GraphEntry(_Entry):
    """One graph: its file, and what a caller must know to run it; ``binding`` is what its symbols were bound to."""

    name: str
    file: FileName
    sha256: str
    nodes: int
    functions: int = 0
    inputs: list[Port] = []
    outputs: list[Port] = []
    states: list[StateEntry] = []
    symbols: list[str] = []
    binding: dict[str, int] = {}


class FileEntry(_Entry):
    """A file that belongs to the program; ``sha256`` of its content where it holds weights moved out of the graphs."""

    name: FileName
    bytes: int
    sha256: str = ""


class ReferredEntry(_Entry):
    """A file of weights that is referred to and belongs to somebody else."""

    location: str
    bytes: int


class SourceEntry(_Entry):
    """The file that a graph was read from: its name, and the sha256 of its bytes (external data not included)."""

    graph: str
    name: str
    sha256: str


class PassEntry(_Entry):
    """One pass that ran."""

    text: str
    counts: dict[str, int] = {}
    seconds: float = 0.0
    notes: list[str] = []
    warnings: list[str] = []


class Provenance(_Entry):
    """How a program came to be. The seconds differ from run to run; everything else is a function of the input."""

    sources: list[SourceEntry] = []
    pipeline: str = ""
    tool: str = ""
    packages: dict[str, str] = {}
    passes: list[PassEntry] = []
    notes: list[str] = []


class DigestEntry(_Entry):
    """What the program is, wherever it lies: see :mod:`ir.digest`."""

    program: str
    graphs: list[str] = []
    weights: str = ""
    manifest: str = ""


class ProgramIndex(_Entry):
    """The whole of ``program.json``."""

    format: Literal["onnx-llm-passes/program"] = FORMAT
    schema_version: int = Field(default=SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)
    graphs: list[GraphEntry] = Field(min_length=1)
    files: list[FileEntry] = []
    referred: list[ReferredEntry] = []
    specializations: list[Any] = []
    custom_io: dict[str, str] = {}
    encodings: dict[str, Any] = {}
    contracts: list[dict[str, Any]] = Field(default=[], max_length=MAX_CONTRACTS)
    assumptions: list[str] = []
    digest: DigestEntry | None = None
    provenance: Provenance = Provenance()
    earlier: list[Provenance] = []

    @model_validator(mode="after")
    def _names_differ(self) -> ProgramIndex:
        for names in ([g.name for g in self.graphs], [g.file for g in self.graphs], [f.name for f in self.files]):
            if len(set(names)) < len(names):
                raise ValueError("a name stands twice")
        return self


def read_index(folder: Path, *, whole: bool = False) -> ProgramIndex:
    """The index of a saved folder; InputError where it is not one of ours, or too new, or does not match the files.

    ``whole`` also reads every file whose digest is listed, however large; else only those up to READ_BYTES.
    """
    path = folder / INDEX_NAME
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise InputError("is too large for an index", where=str(path), wanted=f"at most {MAX_INDEX_BYTES} bytes")
        index = ProgramIndex.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(
            f"is not an index of this version: {place}: {first['msg']}",
            where=str(path),
            hint="Give one of the .onnx files instead of the folder.",
        ) from error
    except (OSError, RecursionError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from error
    _check_version(index, path)
    _check_files(index, folder, whole=whole)
    return index


def _check_version(index: ProgramIndex, path: Path) -> None:
    """What version 1 assumed of its inputs it said in prose: guessing at it would be neither exact nor refused."""
    if index.schema_version < SCHEMA_VERSION:
        raise InputError(
            f"was written by an earlier version (schema {index.schema_version}), which kept what it assumes as prose",
            where=str(path),
            hint=f"Run the pipeline again: onnx-passes run '{index.provenance.pipeline}' MODEL -o OUT.",
        )


def _check_files(index: ProgramIndex, folder: Path, *, whole: bool) -> None:
    for entry in index.files:
        path = folder / entry.name
        if not path.is_file() or path.stat().st_size != entry.bytes or not _is_content(path, entry, whole=whole):
            raise InputError(
                f"does not match the folder: {entry.name} is missing or was changed",
                where=str(folder / INDEX_NAME),
                wanted=f"{entry.bytes} bytes",
                hint="Its run was cut short, or files were edited: run it again, or give the .onnx file itself.",
            )


def _is_content(path: Path, entry: FileEntry, *, whole: bool) -> bool:
    """False where the content is read and another's; nothing else distinguishes weights of equal sizes."""
    if not entry.sha256 or (entry.bytes > READ_BYTES and not whole):
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256


def listed_files(folder: Path) -> frozenset[str]:
    """Names of the files in ``folder`` that its index lists, itself included; none where no index of ours is there."""
    path = folder / INDEX_NAME
    try:
        if path.is_symlink() or path.stat().st_size > MAX_INDEX_BYTES:
            return frozenset()
        index = ProgramIndex.model_validate_json(path.read_bytes())
    except (OSError, ValidationError, RecursionError):
        return frozenset()
    return frozenset({INDEX_NAME, *(entry.name for entry in index.files)})
