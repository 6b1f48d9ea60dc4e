"""emit-manifest writes the program's specializations as a target's compiler reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Literal

from ..ir.core.errors import PassRefused, UnknownNameError, UsageError
from ..ir.core.specialization import Manifest
from ..ir.interface.analysis import ALL, GraphAnalysis, Known, analysis_of
from ..ir.manifests import Command, GraphInterface, Target, get_target, interface_of
from ..ir.manifests.deployment import deployment_of
from ..ir.manifests.flags import with_flags
from ..ir.manifests.partition import PARTITION
from ..ir.manifests.retained import refuse_unretained
from ..ir.manifests.targets import has_table, table_of
from ..ir.manifests.targets.survey import survey
from ..ir.program.program import Program
from ..ir.proof import prove
from ..ir.rewrite.bind_sizes import bound_in
from ..ir.symbolic.dims import free_symbols
from .base import Pass, Report

ARGUMENTS = "compile_args.json"
FORMS = {"named": "qaic", "flat": "qaic-flat"}  # manifest form -> the target that writes it


class Unsupported(Enum):
    """What is done about operators that the target's table does not have."""

    WARN = "warn"
    REFUSE = "refuse"
    ALLOW = "allow"


@dataclass(frozen=True)
class EmitManifest(Pass):
    """Writes the files that a target's compiler takes, and the arguments that make it take them; no graph changes.

    Before → after::

        specializations of the program   →   specializations.json, custom_io.yaml, compile_args.json   (target=qaic)

    1. Each target writes the form that its compiler reads: named sizes, shapes of inputs, profiles, overrides.
    2. Arguments name what there is: retained states where states remain, functions where the graph has some, a
       partition where ``partition`` ran before.
    3. A program of several graphs gets ``<graph>.`` before each file's name.

    4. ``manifest=named,flat`` writes the sizes with and without names: compilers before the named form want the other.
       The first is the one that the arguments name, the other is ``specializations.flat.json`` (or ``named``).
    5. Operators and forms that the target's table does not have are warned of (``unsupported=refuse`` refuses
       them, ``allow`` says nothing).
    6. ``flags="-aic-num-cores=16 -mxfp6-matmul"`` go to the compiler as they are; one that it is not known by is warned
       of.

    Refused: no specialization; one that leaves a symbol of the graph open, binds a symbol no graph has, or does not fit
    the graph, as ``check`` proves it. Where the target keeps states on the device: outputs whose names pair with no
    input (it pairs ``X_RetainedState`` with ``X``), and caches that grow, whose two ends have different sizes.

    Attributes:
        unsupported: What is done about operators that the target does not take.
        flags: Further flags of the target's compiler.
        manifest: The forms of specializations.json, named or flat, of a target that has both; its own by default.
        target: The compiler or runtime, by its name in docs/manifests.md; any other name is answered with all of them.
    """

    name: ClassVar[str] = "emit-manifest"
    preserves: ClassVar[frozenset[Known]] = ALL

    target: str
    unsupported: Unsupported = Unsupported.WARN
    flags: str = ""
    manifest: tuple[Literal["named", "flat"], ...] = ()

    def run(self, program: Program) -> Report:
        """Adds the files to what a save writes."""
        target, others = self._writers()
        manifest = Manifest.of(program.specializations)
        sheets = list(_sheets(program, manifest))
        for interface in sheets:
            _check(interface, target, _written(program, interface.graph))
        _refuse_unretained(program, self.target)
        _prove(program, manifest, target)
        warnings = self._survey(program)
        files = {name: text for interface in sheets for name, text in target.write(interface).items()}
        for form, other in others.items():
            files |= {name: text for interface in sheets for name, text in _renamed(other, interface, form)}
        commands = [(interface.graph, command) for interface in sheets for command in target.commands(interface)]
        flagged = with_flags(self.target, [c for _, c in commands], self.flags, where=f"{self.name}, flags")
        calls = zip((graph for graph, _ in commands), flagged.commands, strict=True)
        content = {"target": target.name, "commands": [_call(graph, command) for graph, command in calls]}
        files[ARGUMENTS] = json.dumps(content, indent=2) + "\n"
        program.artifacts |= files
        counts = {"files": len(files), "specializations": len(manifest.specializations)}
        return Report(modified=True, counts=counts, warnings=(*warnings, *flagged.warnings))

    def _writers(self) -> tuple[Target, dict[str, Target]]:
        """The target that writes, and those of further forms; UsageError where there is but one form."""
        if not self.manifest:
            return get_target(self.target), {}
        if self.target not in FORMS.values():
            get_target(self.target)
            raise UsageError(
                f"target {self.target!r} has one form of manifest",
                where=f"{self.name}, manifest",
                found=",".join(self.manifest),
                hint="Leave manifest= out.",
            )
        first, *others = dict.fromkeys(self.manifest)
        return get_target(FORMS[first]), {form: get_target(FORMS[form]) for form in others}

    def _survey(self, program: Program) -> tuple[str, ...]:
        """What the target does not take of the graphs that are written; raises PassRefused where that is asked for."""
        if self.unsupported is Unsupported.ALLOW or not has_table(self.target):
            return ()
        table = table_of(self.target)
        bases = {id(base): base for base, _ in (program.resolve(name) for name in program.names)}
        findings = [str(finding) for base in bases.values() for finding in survey(base, table)]
        if findings and self.unsupported is Unsupported.REFUSE:
            raise PassRefused(
                f"{table.version} does not take the graph",
                where=self.name,
                found=" | ".join(findings),
                hint="unsupported=warn writes the manifest nevertheless.",
            )
        return tuple(f"{table.version} does not take {finding}" for finding in findings)


def _sheets(program: Program, manifest: Manifest) -> Iterator[GraphInterface]:
    several = len(program.names) > 1
    for item in manifest.specializations:
        if item.graph and item.graph not in program.names:
            raise UnknownNameError("graph", item.graph, program.names, where=f"specialization {item.name!r}")
    for graph in program.names:
        base, bound = program.resolve(graph)
        own = manifest.for_graph(graph)
        if not own:
            raise PassRefused(
                "there is no specialization to write",
                where=f"{EmitManifest.name}, graph {graph!r}",
                hint="Run specialize before it: onnx-passes list specialize.",
            )
        left = tuple(item.model_copy(update={"binding": _left(item.binding, bound)}) for item in own)
        prefix = f"{graph}." if several else ""
        partition = prefix + PARTITION if prefix + PARTITION in program.artifacts else ""
        yield interface_of(
            graph, base, left, custom_io=program.custom_io, partition=partition, prefix=prefix, binding=bound
        )


def _written(program: Program, graph: str) -> Mapping[str, int]:
    """Every size that the graph's file has in the place of a symbol."""
    base, bound = program.resolve(graph)
    return {**bound_in(base), **bound}


def _left(binding: Mapping[str, int], bound: Mapping[str, int]) -> dict[str, int]:
    return {name: size for name, size in binding.items() if name not in bound}


def _check(interface: GraphInterface, target: Target, written: Mapping[str, int]) -> None:
    """That every symbol is bound and every bound one is known, said with the nearest name."""
    symbols = _symbols(interface) | written.keys()  # bind wrote sizes in: their symbols stay in the manifest
    for item in interface.specializations:
        where = f"{EmitManifest.name}, specialization {item.name!r}"
        unknown = [name for name in item.binding if name not in symbols and name not in target.tolerated]
        if unknown:
            hint = f"Graph {interface.graph!r} has {', '.join(sorted(symbols)) or 'no symbol'}."
            raise UnknownNameError("symbol", unknown[0], symbols, where=where, hint=hint)
        for port in interface.inputs:
            port.sizes(item.binding)


def _prove(program: Program, manifest: Manifest, target: Target) -> None:
    """Whether the sizes fit the graphs, by the same rules as ``check``."""
    known: dict[int, GraphAnalysis] = {}
    for graph in program.names:
        base, _ = program.resolve(graph)
        gone = {**bound_in(base), **program.bound.get(graph, {})}  # a clone's sizes stand beside its base's symbols
        own = [item.model_copy(update={"binding": _left(item.binding, gone)}) for item in manifest.for_graph(graph)]
        canonical = known.setdefault(id(base), analysis_of(base)).dimensions()
        ports = {value.name for value in (*base.graph.inputs, *base.graph.outputs)}
        listed = {name: kind for name, kind in program.custom_io.items() if name in ports}
        proof = prove(canonical, own, name=graph, tolerated=target.tolerated, custom_io=listed)
        if not proof.sound:
            first, *others = proof.all_failures
            more = f"{len(others)} more: onnx-passes check tells all." if others else ""
            raise PassRefused(str(first), where=f"{EmitManifest.name}, graph {graph!r}", hint=more)


def _symbols(interface: GraphInterface) -> set[str]:
    return {
        name
        for port in (*interface.inputs, *interface.outputs)
        for dim in port.shape or ()
        for name in (free_symbols(dim) if dim is not None else ())
    }


def _call(graph: str, command: Command) -> dict[str, Any]:
    return {"graph": graph, "program": command.program, "arguments": list(command.arguments)}


def _renamed(target: Target, interface: GraphInterface, form: str) -> Iterator[tuple[str, str]]:
    """The file of specializations that another form has, under a name of its own."""
    text = target.write(interface).get(interface.file(target.file))
    if text is not None:
        stem, _, tail = target.file.rpartition(".")
        yield interface.file(f"{stem}.{form}.{tail}"), text


def _refuse_unretained(program: Program, target: str) -> None:
    """Raises PassRefused for states that cannot stay on the device."""
    bases = {id(base): (name, base) for name in program.names for base in (program.resolve(name)[0],)}
    for name, base in bases.values():
        kind = deployment_of(target)
        refuse_unretained(analysis_of(base).states, kind, where=f"{EmitManifest.name}, graph {name!r}", target=target)
