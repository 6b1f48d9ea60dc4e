"""A program is what a pipeline carries: named graphs over one set of weights, and everything that goes with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from ..core.encoding import TensorEncoding
    from ..core.specialization import Specialization
    from ..serialization.index import Provenance
    from ..serialization.weights import WeightsMode
    from .clone import Clone
    from .contract import Contract
    from .contracts.sizes import Claims
    from .load import Source
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
        artifacts: Further files that a save writes beside the graphs: name -> text, or bytes.
        origins: The files that the graphs were read from.
        earlier: How the program came to be before this run, oldest first.
        weight_files: Graph -> a data file of its own that a save copies its weights into, apart from others.
    """

    graphs: dict[str, ir.Model]
    source: Path | None = None
    specializations: list[Specialization] = field(default_factory=list["Specialization"])
    custom_io: dict[str, str] = field(default_factory=dict[str, str])
    encodings: dict[str, TensorEncoding] = field(default_factory=dict[str, "TensorEncoding"])
    contracts: list[Contract] = field(default_factory=list["Contract"])
    history: list[PassRecord] = field(default_factory=list[PassRecord])
    pipeline: str = ""
    artifacts: dict[str, str | bytes] = field(default_factory=dict[str, "str | bytes"])
    origins: tuple[Origin, ...] = ()
    earlier: list[Provenance] = field(default_factory=list["Provenance"])
    clones: dict[str, Clone] = field(default_factory=dict[str, "Clone"])
    bound: dict[str, dict[str, int]] = field(default_factory=dict[str, "dict[str, int]"])
    weight_files: dict[str, str] = field(default_factory=dict[str, str])

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

    def copy(self) -> Program:
        """A program that passes may change while this one stays as it is: graphs are cloned, weights are shared."""
        fields = ("specializations", "contracts", "history", "earlier")
        tables = ("custom_io", "encodings", "artifacts", "clones", "bound")
        return replace(
            self,
            graphs={name: model.clone() for name, model in self.graphs.items()},
            **{name: list(getattr(self, name)) for name in fields},
            **{name: dict(getattr(self, name)) for name in tables},
        )

    def unshare(self) -> None:
        """Makes every clone a graph of its own, for what needs to edit them one by one."""
        if self.clones:
            bound = {name: dict(clone.binding) for name, clone in self.clones.items()}
            self.graphs = {name: self.graph(name) for name in self.names}
            self.clones = {}
            self.bound |= {name: binding for name, binding in bound.items() if binding}

    @classmethod
    def load(
        cls, source: Source, *, base_dir: str | os.PathLike[str] | None = None, follow_links: bool = False
    ) -> Program:
        """Reads an .onnx file, a folder (what its program.json lists, else its one .onnx file), or a model in memory.

        In memory: an ``onnx.ModelProto`` (external data lies in ``base_dir``), an ``onnx_ir.Model``, which is cloned so
        that passes leave it as it is, or what has a ``to_model_proto()`` (an onnxscript function) or such a ``model``
        (what ``torch.onnx.export`` returns). A mapping of names to files or models makes one program of several graphs.

        External data is checked (it exists, lies in the folder, is long enough) and not read. InputError says what is
        wrong with the input; ``follow_links`` allows links that lead out of the folder.
        """
        from .load import load_program

        return load_program(source, base_dir=base_dir, follow_links=follow_links)

    def save(
        self,
        out: str | os.PathLike[str],
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
