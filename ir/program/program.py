"""A program is what a pipeline carries: named graphs over one set of weights, and everything that goes with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from ..core.errors import InputError, expect
from ..serialization.loading import load_graph
from ..serialization.pending import finish_pending

if TYPE_CHECKING:
    from ..core.encoding import TensorEncoding
    from ..core.specialization import Specialization
    from ..serialization.index import Provenance
    from ..serialization.weights import WeightsMode
    from .clone import Clone
    from .contract import Contract
    from .contracts.sizes import Claims
    from .save import Saved


@dataclass
class PassRecord:
    """One pass that ran: its text, what it counted, how long it took, what it said; and its name."""

    text: str
    counts: dict[str, int] = field(default_factory=dict[str, int])
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True)
class Origin:
    """The file that a graph was read from, and the sha256 of its bytes then."""

    graph: str
    path: Path
    sha256: str


@dataclass
class Program:
    """Named graphs over one set of weights, plus specializations, custom I/O, encodings, provenance.

    Attributes:
        graphs: Name -> graph; saved as ``<name>.onnx``, except one that has clones: those are saved in its place.
        clones: Name -> a graph that differs from one of ``graphs`` in dimensions only; edited with it.
        bound: Graph -> the binding that its file was written with, for graphs loaded from a saved program.
        source: The file or folder it was loaded from.
        contracts: What the passes say of inputs and outputs, oldest first: what must hold of them, how they changed.
        artifacts: Further files that a save writes beside the graphs: name -> text.
        origins: The files that the graphs were read from.
        earlier: How the program came to be before this run, oldest first.
    """

    graphs: dict[str, ir.Model]
    source: Path | None = None
    specializations: list[Specialization] = field(default_factory=list["Specialization"])
    custom_io: dict[str, str] = field(default_factory=dict[str, str])
    encodings: dict[str, TensorEncoding] = field(default_factory=dict[str, "TensorEncoding"])
    contracts: list[Contract] = field(default_factory=list["Contract"])
    history: list[PassRecord] = field(default_factory=list[PassRecord])
    pipeline: str = ""
    artifacts: dict[str, str] = field(default_factory=dict[str, str])
    origins: tuple[Origin, ...] = ()
    earlier: list[Provenance] = field(default_factory=list["Provenance"])
    clones: dict[str, Clone] = field(default_factory=dict[str, "Clone"])
    bound: dict[str, dict[str, int]] = field(default_factory=dict[str, "dict[str, int]"])

    @property
    def assumptions(self) -> list[str]:
        """What the contracts ask of the inputs, as sentences for people."""
        return [str(contract) for contract in self.contracts if contract.assumes]

    @property
    def claims(self) -> Claims:
        """What the specializations claim to cover, by the last pass that made them; nothing where none did."""
        from .contracts.chain import claims_in

        return claims_in(self.contracts)

    @property
    def pass_texts(self) -> list[str]:
        """Every pass that ran on the program, in this run and in those before it was saved."""
        return [entry.text for run in self.earlier for entry in run.passes] + [record.text for record in self.history]

    @property
    def names(self) -> list[str]:
        """The graphs that a save writes, in order: those without clones, then the clones."""
        bases = {clone.base for clone in self.clones.values()}
        return [*(name for name in self.graphs if name not in bases), *self.clones]

    def graph(self, name: str) -> ir.Model:
        """The graph of that name; a clone becomes a graph of its own first, which costs a copy of its nodes."""
        from .clone import materialize

        clone = self.clones.get(name)
        return self.graphs[name] if clone is None else materialize(self.graphs[clone.base], clone, name)

    def resolve(self, name: str) -> tuple[ir.Model, Mapping[str, int]]:
        """The graph that has the nodes of the file ``name``.onnx, and the sizes that the file has for its symbols."""
        clone = self.clones.get(name)
        if clone is not None:
            return self.graphs[clone.base], clone.binding
        return self.graphs[name], self.bound.get(name, {})

    def unshare(self) -> None:
        """Makes every clone a graph of its own, for what needs to edit them one by one."""
        if self.clones:
            bound = {name: dict(clone.binding) for name, clone in self.clones.items()}
            self.graphs = {name: self.graph(name) for name in self.names}
            self.clones = {}
            self.bound |= {name: binding for name, binding in bound.items() if binding}

    @classmethod
    def load(cls, path: str | Path, *, follow_links: bool = False) -> Program:
        """Reads an .onnx file, or a folder: what its program.json lists, else the one .onnx file in it.

        External data is checked (it exists, lies in the folder, is long enough) and not read. InputError says what is
        wrong with the input; ``follow_links`` allows links that lead out of the folder.
        """
        hint = "Of a graph in memory: Program(graphs={'model': onnx_ir.from_proto(proto)})."
        expect((str, os.PathLike), path, "Program.load", hint)
        path = Path(path)
        is_folder = os.path.isdir(path)  # noqa: PTH112  Path.is_dir raises where a parent may not be read
        finish_pending(path if is_folder else path.parent)
        if not is_folder:
            return _load_files(path, {path.stem: path}, follow_links=follow_links)
        if os.path.lexists(path / "program.json"):
            return _load_saved(path, follow_links=follow_links)
        file = _only_model(path)
        return _load_files(path, {file.stem: file}, follow_links=follow_links)

    def save(
        self,
        out: str | Path,
        *,
        weights: WeightsMode | str = "auto",
        force: bool = False,
        fill_shapes: bool = True,
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> Saved:
        """Writes the program into the folder ``out``: ``<graph>.onnx`` each, data files where needed, ``program.json``.

        ``weights``: ``auto`` refers to data files in ``out`` or below it and copies others once, ``refer`` never
        copies, ``copy`` always does. Initializers over 1 KiB inside a graph move to ``weights.data``. Graph and
        data files are the same bytes for the same program; program.json also tells seconds. All or nothing: OutputError
        where ``out`` must not be written to, WriteError where writing failed, and then nothing has changed.
        """
        from .save import save_program

        return save_program(
            self, Path(out), weights=weights, force=force, fill_shapes=fill_shapes, on_progress=on_progress
        )


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
