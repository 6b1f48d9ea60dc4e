"""``check`` proves that every specialization fits its graph, and that a target takes the operators."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir.core.errors import UsageError
from ..ir.core.gc_off import collector_off
from ..ir.core.shown import Shown, Table
from .sources import path_of, place_of, program_of

if TYPE_CHECKING:
    from ..ir.manifests.read_any import Reading
    from ..ir.manifests.targets.survey import Finding
    from ..ir.program.program import Program
    from ..ir.proof import Proof
    from ..runtime.verify.trial import Trial
    from .sources import Model


@dataclass(frozen=True)
class CheckReport(Shown):
    """What was proved: a proof a graph, the operators that the target refuses by graph, runs where asked for."""

    source: str
    manifest: str | None
    target: str
    proofs: tuple[Proof, ...]
    refused: Mapping[str, Sequence[Finding]]
    trials: tuple[Trial, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether every size fits and the target takes every operator."""
        return all(proof.sound for proof in self.proofs) and not any(self.refused.values())

    @property
    def sound(self) -> bool:
        """Whether it fits, and nothing that was run failed."""
        return self.fits and not any(trial.failed for trial in self.trials)

    def to_dict(self) -> dict[str, Any]:
        """As ``check --json`` prints it."""
        return {
            "schema": 1,
            "source": self.source,
            "manifest": self.manifest,
            "target": self.target,
            "sound": self.sound,
            "graphs": [proof.to_dict() for proof in self.proofs],
            "operators": {name: [str(finding) for finding in findings] for name, findings in self.refused.items()},
            "runs": [
                {"graph": t.graph, "specialization": t.specialization, "failed": t.failed, "skipped": t.skipped}
                for t in self.trials
            ],
        }

    def _rows(self) -> Table:
        said = [
            (proof.graph, verdict.specialization, "sound" if verdict.sound else "not sound")
            for proof in self.proofs
            for verdict in proof.verdicts
        ]
        refused = [(name, "operators", str(finding)) for name, found in self.refused.items() for finding in found]
        return self.source, ("graph", "specialization", "verdict"), said + refused


def check(
    model: Model,
    manifest: str | os.PathLike[str] | None = None,
    *,
    target: str = "",
    run: bool = False,
    follow_links: bool = False,
) -> CheckReport:
    """Proves every specialization of the program, or of a manifest in any target's form.

    ``target`` names whose operators to check, else the manifest's target; ``run`` also runs each one once on
    onnxruntime. UsageError where there is nothing to prove, InputError for files that cannot be read.
    """
    from ..ir.serialization.index import INDEX_NAME, read_index

    if manifest is not None:
        path_of(manifest, "check", "manifest")
    file = None if manifest is None else Path(manifest)
    with collector_off():
        program = program_of(model, "check", follow_links=follow_links)
        if program.source is not None and (program.source / INDEX_NAME).is_file():
            read_index(program.source, whole=True)
        reading = _reading(program, file)
        proofs = _prove(program, reading, own=file is None)
        refused = _survey(program, target or reading.target or _written_for(program))
    place = None if file is None else file.as_posix()
    report = CheckReport(place_of(model, program), place, reading.target, tuple(proofs), refused)
    return dataclasses.replace(report, trials=tuple(_try(program, reading))) if run and report.fits else report


def _reading(program: Program, manifest: Path | None) -> Reading:
    from ..ir.manifests.read_any import Reading, read_manifest

    _refuse_doubled_keys(program)
    own = tuple(program.specializations)
    if manifest is None:
        if not own:
            hint = "Give a MANIFEST, or a folder that a pipeline with specialize{…} wrote."
            raise UsageError("the program has no specializations", where=str(program.source or ""), hint=hint)
        return Reading(specializations=own, custom_io=program.custom_io)
    reading = _of_one_graph(program, read_manifest(manifest), manifest.name)
    if not reading.specializations and reading.custom_io and own:  # a list of precisions alone
        return Reading(reading.target, own, reading.tolerated, reading.custom_io)
    return reading


def _of_one_graph(program: Program, reading: Reading, file: str) -> Reading:
    """A file that is named after one of several graphs speaks of that graph alone."""
    graph = next((name for name in program.graphs if file.startswith(f"{name}.")), "")
    if len(program.graphs) < 2 or not graph:
        return reading
    own = [spec if spec.graph else spec.model_copy(update={"graph": graph}) for spec in reading.specializations]
    return dataclasses.replace(reading, specializations=tuple(own))


def _refuse_doubled_keys(program: Program) -> None:
    """An index in which a key stands twice says two things; ManifestInvalid names the key."""
    from ..ir.manifests.strict import load_json, read_text
    from ..ir.serialization.index import INDEX_NAME

    index = program.source / INDEX_NAME if program.source is not None else Path()
    if index.is_file():
        load_json(read_text(index), where=INDEX_NAME)


def _prove(program: Program, reading: Reading, *, own: bool) -> list[Proof]:
    from ..ir.proof import prove_program
    from ..ir.proof.prove import TOLERATED

    listed: Mapping[str, str] = {**program.custom_io, **reading.custom_io} if own else reading.custom_io
    return prove_program(
        program,
        reading.specializations,
        tolerated=reading.tolerated if reading.target else TOLERATED,
        custom_io=listed,
        claims=program.claims if own else None,
    )


def _written_for(program: Program) -> str:
    """The target whose arguments the program's folder holds."""
    from ..ir.manifests.strict import load_json, read_text

    path = program.source / "compile_args.json" if program.source is not None else Path()
    content = load_json(read_text(path), where=path.name) if path.is_file() else {}
    return str(content.get("target", "")) if isinstance(content, dict) else ""


def _survey(program: Program, target: str) -> dict[str, Sequence[Finding]]:
    """What the target does not take, by graph; nothing where its operators are not known."""
    from ..ir.manifests.targets import has_table, table_of
    from ..ir.manifests.targets.survey import survey

    if not has_table(target):
        return {}
    table = table_of(target)
    return {name: survey(model, table) for name, model in program.graphs.items()}


def _try(program: Program, reading: Reading) -> list[Trial]:
    from ..runtime.verify.trial import try_program

    return list(try_program(program, reading.specializations))
