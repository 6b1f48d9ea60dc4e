"""``onnx-passes check``: is every specialization sound for the graph?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..ir.core.errors import UsageError
from . import render
from .options import Debug, FollowLinks, Json, ModelPath

if TYPE_CHECKING:
    from ..ir.manifests.read_any import Reading
    from ..ir.manifests.targets.survey import Finding
    from ..ir.program.program import Program
    from ..ir.proof import Proof
    from ..runtime.verify.trial import Trial

    Refused = Mapping[str, Sequence[Finding]]


def check(
    model: ModelPath,
    manifest: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MANIFEST]",
            help="Specializations in any target's form; those of the program where none is given.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option("--target", help="Whose operators to check; the manifest's where not given.", show_default=False),
    ] = "",
    run: Annotated[bool, typer.Option("--run", help="Also run each one once on onnxruntime.")] = False,
    as_json: Json = False,
    follow_links: FollowLinks = False,
    debug: Debug = False,
) -> None:
    """Prove that every specialization fits the graph. Exit code 0 for sound, 1 for not, 2 for a mistake of usage.

    A failure names the symbol, the first node whose shapes clash, where they come from, and the nearest size.
    """
    from ..ir.core.gc_off import collector_off
    from ..ir.program.program import Program
    from ..ir.serialization.index import INDEX_NAME, read_index

    with collector_off():
        program = Program.load(model, follow_links=follow_links)
        if program.source is not None and (program.source / INDEX_NAME).is_file():
            read_index(program.source, whole=True)
        reading = _reading(program, manifest)
        proofs = _prove(program, reading, own=manifest is None)
        refused = _survey(program, target or reading.target or _written_for(program))
    sound = all(proof.sound for proof in proofs) and not any(refused.values())
    trials = _try(program, reading) if run and sound else []
    sound = sound and not any(trial.failed for trial in trials)
    if as_json:
        places = {"source": model.as_posix(), "manifest": manifest.as_posix() if manifest is not None else None}
        render.show_json({"schema": 1, **places, **_as_json(reading, proofs, trials, refused, sound=sound)})
    else:
        _show(proofs, trials, refused, sound=sound)
    if not sound:
        raise typer.Exit(1)


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


def _survey(program: Program, target: str) -> Refused:
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


def _as_json(
    reading: Reading, proofs: Sequence[Proof], trials: Sequence[Trial], refused: Refused, *, sound: bool
) -> dict[str, Any]:
    return {
        "target": reading.target,
        "sound": sound,
        "graphs": [proof.to_dict() for proof in proofs],
        "operators": {name: [str(finding) for finding in findings] for name, findings in refused.items()},
        "runs": [
            {"graph": t.graph, "specialization": t.specialization, "failed": t.failed, "skipped": t.skipped}
            for t in trials
        ],
    }


def _show(proofs: Sequence[Proof], trials: Sequence[Trial], refused: Refused, *, sound: bool) -> None:
    ran = {(trial.graph, trial.specialization): trial for trial in trials}
    rows = [
        (proof.graph, verdict.specialization, "sound" if verdict.sound else "NOT SOUND", _ran(ran, proof, verdict))
        for proof in proofs
        for verdict in proof.verdicts
    ]
    columns = ("graph", "specialization", "verdict", *(("run",) if trials else ()))
    render.table(columns, (row[: len(columns)] for row in rows))
    for proof in proofs:
        render.tell_all("note", proof.notes)
        for failure in proof.all_failures:
            render.show(f"\n{failure.rule}: {failure}")
    for trial in trials:
        if trial.failed or trial.skipped:
            render.show(f"\nrun: {trial.specialization}: {trial.failed or trial.skipped}")
    for graph, findings in refused.items():
        for finding in findings:
            render.show(f"\noperators: graph {graph}: {finding}")
    render.show()
    number = sum(len(findings) for findings in refused.values())
    number += sum(len(proof.all_failures) for proof in proofs) + sum(bool(trial.failed) for trial in trials)
    render.show("sound" if sound else f"not sound: {render.count(number, 'failure')}")


def _ran(ran: Mapping[tuple[str, str], Trial], proof: Proof, verdict: Any) -> str:
    trial = ran.get((proof.graph, verdict.specialization))
    if trial is None:
        return ""
    return "FAILED" if trial.failed else "skipped" if trial.skipped else "ran"
