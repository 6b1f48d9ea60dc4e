"""Describes the graphs of a program about to be saved and puts its provenance together, as its index."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from ..serialization.digest import digest_clone, digest_manifest, digest_program, digest_sizes
from ..serialization.encoding_entries import to_entries
from ..serialization.index import (
    DigestEntry,
    FileEntry,
    GraphEntry,
    PassEntry,
    Port,
    ProgramIndex,
    Provenance,
    ReferredEntry,
    SourceEntry,
    StateEntry,
)
from ..states import State
from ..symbolic.dims import free_symbols, parse, substitute
from ..symbolic.symbols import symbols_of

if TYPE_CHECKING:
    from .program import Program

TOOL = "onnx-llm-passes"
PACKAGES = ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")


def describe_program(
    program: Program,
    digests: Mapping[str, str],
    structures: Mapping[str, str],
    files: Mapping[str, int],
    referred: Mapping[str, int],
    notes: Sequence[str],
    contents: Mapping[str, str],
) -> ProgramIndex:
    """The index: ``digests`` of files and ``structures`` of graphs by name, ``files`` and ``referred`` name -> bytes.

    ``notes`` are those of the save, ``contents`` the sha256 of each file of moved weights.
    """
    return ProgramIndex(
        graphs=_graphs(program, digests),
        files=[FileEntry(name=name, bytes=size, sha256=contents.get(name, "")) for name, size in files.items()],
        referred=[ReferredEntry(location=location, bytes=size) for location, size in referred.items()],
        specializations=[_plain(item) for item in program.specializations],
        custom_io=program.custom_io,
        encodings=to_entries(program.encodings),
        contracts=[contract.to_json() for contract in program.contracts],
        assumptions=program.assumptions,
        digest=_digest(program, structures, files, referred),
        provenance=_provenance(program, notes),
        earlier=program.earlier,
    )


def _graphs(program: Program, digests: Mapping[str, str]) -> list[GraphEntry]:
    """The entries of the files in the order they are written; a clone's is its base's with sizes for symbols."""
    bases = {name: describe_graph(name, model, "") for name, model in program.graphs.items()}
    entries: list[GraphEntry] = []
    for name in program.names:
        clone = program.clones.get(name)
        entry = bases[name if clone is None else clone.base].model_copy(update={"sha256": digests[name]})
        binding = program.bound.get(name, {}) if clone is None else dict(clone.binding)
        ports = {"inputs": entry.inputs, "outputs": entry.outputs}
        if clone is not None:
            ports = {key: [_bound(port, binding) for port in found] for key, found in ports.items()}
        symbols = _symbols([*ports["inputs"], *ports["outputs"]]) if clone is not None else entry.symbols
        own = {"name": name, "file": f"{name}.onnx", "symbols": symbols, "binding": binding, **ports}
        entries.append(entry.model_copy(update=own))
    return entries


def _bound(port: Port, binding: Mapping[str, int]) -> Port:
    """A port with sizes for the symbols that are bound."""
    if port.shape is None or not binding:
        return port
    dims = [substitute(parse(dim), binding) if isinstance(dim, str) else dim for dim in port.shape]
    shape = [new if isinstance(new, int) else old for old, new in zip(port.shape, dims, strict=True)]
    return port.model_copy(update={"shape": shape})


def _symbols(ports: Sequence[Port]) -> list[str]:
    dims = [parse(dim) for port in ports for dim in port.shape or () if isinstance(dim, str)]
    return list(dict.fromkeys(name for dim in dims for name in sorted(free_symbols(dim))))


def _digest(
    program: Program, structures: Mapping[str, str], files: Mapping[str, int], referred: Mapping[str, int]
) -> DigestEntry:
    """Digests of what the program is; the weights' by the sizes of their files, which costs no reading."""
    graphs = [_graph_digest(program, name, structures) for name in program.names]
    others = {*(f"{name}.onnx" for name in program.names), *program.artifacts}
    weights = digest_sizes([*(size for name, size in files.items() if name not in others), *referred.values()])
    manifest = digest_manifest(program.specializations, program.custom_io)
    whole = digest_program(graphs, weights, manifest)
    return DigestEntry(program=whole, graphs=graphs, weights=weights, manifest=manifest)


def _graph_digest(program: Program, name: str, bases: Mapping[str, str]) -> str:
    """A lone graph's digest does not know its name, which is its file's; one of several does."""
    clone = program.clones.get(name)
    digest = bases[name] if clone is None else digest_clone(bases[clone.base], clone.binding)
    return digest if len(program.names) == 1 else f"{name} {digest}"


def describe_graph(name: str, model: ir.Model, sha256: str) -> GraphEntry:
    """One graph's entry: inputs with roles, outputs, states, symbols, counts."""
    from ..interface.analysis import analysis_of

    known = analysis_of(model)
    states, roles = known.states, known.roles
    return GraphEntry(
        name=name,
        file=f"{name}.onnx",
        sha256=sha256,
        nodes=len(model.graph),
        functions=len(model.functions),
        inputs=[_port(value, roles.get(value.name or "")) for value in model.graph.inputs],
        outputs=[_port(value, None) for value in model.graph.outputs],
        states=[_state(state) for state in states],
        symbols=list(symbols_of(model)),
    )


def _port(value: ir.Value, role: Any) -> Port:
    shape = None if value.shape is None else [d if isinstance(d, int) else d.value for d in value.shape]
    return Port(
        name=value.name or "",
        dtype=value.dtype.name if value.dtype is not None else None,
        shape=shape,
        role=None if role is None else str(role.value),
    )


def _state(state: State) -> StateEntry:
    return StateEntry(
        name=state.name,
        layout=state.layout.value,
        pairing=state.pairing.value,
        layer=state.layer,
        kind=state.kind,
        input=state.input.name if state.input is not None else None,
        output=state.output.name if state.output is not None else None,
        axis=state.axis,
    )


def _provenance(program: Program, notes: Sequence[str]) -> Provenance:
    return Provenance(
        sources=[SourceEntry(graph=o.graph, name=o.path.name, sha256=o.sha256) for o in program.origins],
        pipeline=program.pipeline,
        tool=f"{TOOL} {_version(TOOL)}",
        packages={name: _version(name) for name in PACKAGES},
        passes=[
            PassEntry(
                text=r.text,
                counts=r.counts,
                seconds=round(r.seconds, 6),
                notes=list(r.notes),
                warnings=list(r.warnings),
            )
            for r in program.history
        ],
        notes=list(notes),
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _plain(item: Any) -> Any:
    """``item`` as JSON knows it: pydantic models and dataclasses become objects."""
    dump = getattr(item, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    return dataclasses.asdict(item) if dataclasses.is_dataclass(item) and not isinstance(item, type) else item
