"""Writes a program: weights are placed, graphs serialized and proved, the folder put in place whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from ..core.errors import OutputError, WriteError
from ..core.gc_off import collector_off
from ..interface.analysis import analysis_of
from ..serialization.atomic_folder import Output, open_output
from ..serialization.check_file import check_file, parse_file
from ..serialization.clone_file import Skeleton
from ..serialization.digest import digest_file, digest_graph
from ..serialization.fill_shapes import DATA_BYTES, Filled, NativeEngine, fill_shapes
from ..serialization.index import INDEX_NAME, plain_name
from ..serialization.sparse_copy import Progress, no_progress, require_room
from ..serialization.weights import (
    Inventory,
    Plan,
    WeightsMode,
    make_plan,
    place,
    placed,
    take_inventory,
    write_weights,
)
from ..shapes.described import is_spread_small
from .clone_value_infos import Infos, clone_file

if TYPE_CHECKING:
    import onnx

    from .clone import Clone
    from .program import Program


@dataclass(frozen=True)
class Saved:
    """What a save did: files written; bytes of weights copied with their file, moved out of graphs, referred to."""

    out: Path
    files: tuple[Path, ...]
    copied: int = 0
    moved: int = 0
    referred: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Weights:
    """The weights of graphs that share data files, and where they go."""

    inventory: Inventory
    plan: Plan


@dataclass
class _Job:
    """One save on its way: what to write, where, and what has been written."""

    program: Program
    output: Output
    weights: list[_Weights]
    shapes: bool
    tell: Progress
    digests: dict[str, str] = field(default_factory=dict[str, str])
    structures: dict[str, str] = field(default_factory=dict[str, str])  # of graphs, wherever their weights lie
    notes: list[str] = field(default_factory=list[str])

    @property
    def names(self) -> list[str]:
        """The files in the order in which they may appear: weights, graphs, the rest, the index last."""
        return [*(name for own in self.weights for name in own.plan.written), *_own_names(self.program)]

    def weights_of(self, graph: str) -> _Weights:
        """Those that a graph takes part in."""
        return next(own for own in self.weights if graph in own.inventory.slots)


def save_program(
    program: Program,
    out: Path,
    *,
    weights: WeightsMode | str = WeightsMode.AUTO,
    force: bool = False,
    fill_shapes: bool = True,
    on_progress: Progress | None = None,
) -> Saved:
    """Writes ``program`` into ``out``; see :meth:`Program.save`."""
    mode = WeightsMode.of(weights)
    names = _own_names(program)
    with collector_off(), _system_errors(out, []) as sizes:
        inventories = _inventories(program)
        sources = [source.path for inventory in inventories.values() for source in inventory.files]
        output = open_output(out, [o.path for o in program.origins], list(dict.fromkeys(sources)))
        weighed = _planned(inventories, output, mode, names)
        plans = [own.plan for own in weighed]
        job = _Job(program, output, weighed, fill_shapes, on_progress or no_progress)
        output.check(job.names, force=force)
        sizes.append(sum(plan.copied_bytes + plan.moved_bytes for plan in plans))
        job.notes += [
            f"{name}: {left} bytes that no graph refers to were left out"
            for file, own in zip(inventories, weighed, strict=True)
            for name, left in (own.plan.left_out if not file else ())  # a part never has all
        ]
        with output.building() as folder:
            _write(job, folder)
            output.publish(job.names)
    return Saved(
        out=out,
        files=tuple(out / name for name in job.names),
        copied=sum(plan.copied_bytes for plan in plans),
        moved=sum(plan.moved_bytes for plan in plans),
        referred=sum(source.size for plan in plans for source, _ in plan.referred),
        notes=tuple(job.notes),
    )


def _inventories(program: Program) -> dict[str, Inventory]:
    """The weights of all graphs under no name, those that are to have a data file of their own under its."""
    files = {name: program.weight_files.get(name, "") for name in program.graphs}
    groups = {file: {name: program.graphs[name] for name in files if files[name] == file} for file in files.values()}
    return {file: take_inventory(graphs) for file, graphs in groups.items()}


def _planned(
    inventories: Mapping[str, Inventory], output: Output, mode: WeightsMode, names: Sequence[str]
) -> list[_Weights]:
    taken, made = {*output.taken(), *names}, list[_Weights]()
    for file, inventory in inventories.items():
        plan = make_plan(inventory, output.folder, WeightsMode.COPY if file else mode, taken, file)
        taken.update(plan.written)
        made.append(_Weights(inventory, plan))
    return made


def _own_names(program: Program) -> list[str]:
    if not program.graphs:
        raise OutputError("the program holds no graph to save")
    names = [*(f"{name}.onnx" for name in program.names), *program.artifacts, INDEX_NAME]
    seen: set[str] = set()
    for name in names:
        try:
            plain_name(name)
        except ValueError as error:
            raise OutputError(f"cannot be a file's name: {error}", where=repr(name)) from error
        if name.casefold() in seen:
            raise OutputError("two files of the program bear this name", where=name)
        seen.add(name.casefold())
    return names


def _write(job: _Job, folder: Path) -> None:
    require_room(folder, sum(own.plan.moved_bytes for own in job.weights))
    for own in job.weights:
        write_weights(own.plan, own.inventory, folder, job.tell)
    _check_ranges(job, folder)
    for name, data in _serialized(job):
        job.digests[name] = hashlib.sha256(data).hexdigest()
        _write_file(folder / f"{name}.onnx", data)
        job.tell(f"{name}.onnx", len(data), len(data))
    _prove(job, folder)
    for name, content in job.program.artifacts.items():
        _write_file(folder / name, content if isinstance(content, bytes) else content.encode())
    _write_file(folder / INDEX_NAME, _index(job, folder))


def _serialized(job: _Job) -> Iterator[tuple[str, bytes]]:
    """Every file of the program: its graph's name and its bytes."""
    for name, model in job.program.graphs.items():
        clones = {own: clone for own, clone in job.program.clones.items() if clone.base == name}
        try:
            own = job.weights_of(name)
            with placed(own.inventory.slots[name], own.inventory, own.plan):
                proto = ir.to_proto(model)
            job.structures[name] = digest_graph(proto)
            if clones:
                yield from _clones(job, model, proto, clones)
            else:
                filled = fill_shapes(proto, _engine(model, proto)) if job.shapes else Filled(proto.SerializeToString())
                job.notes.extend([f"{name}: {filled.note}"] if filled.note else [])
                yield name, filled.data
        except (OSError, WriteError):
            raise
        except Exception as error:  # a value without a name, a graph above 2 GB: whatever the serializer raises
            raise WriteError(
                f"cannot be serialized: {type(error).__name__}: {str(error)[:200]}", where=f"graph {name!r}"
            ) from error


def _engine(model: ir.Model, proto: onnx.ModelProto) -> NativeEngine:
    """onnx's inference, which follows the contents of tensors where they are counted and small."""
    small = proto.ByteSize() <= DATA_BYTES
    return NativeEngine(small and is_spread_small(model, lambda: analysis_of(model).facts))


def _clones(
    job: _Job, model: ir.Model, proto: onnx.ModelProto, clones: Mapping[str, Clone]
) -> Iterator[tuple[str, bytes]]:
    """The files of a graph's clones: the nodes serialized once, one header each."""
    infos = Infos.of(model, proto.graph.value_info, fill=job.shapes)
    skeleton = Skeleton.of(proto)
    for name, clone in clones.items():
        yield name, clone_file(skeleton, infos, name, clone)
    job.notes.extend(f"{', '.join(clones)}: {note}" for note in infos.notes)


def _check_ranges(job: _Job, folder: Path) -> None:
    """Holds every range that the graphs will name against the file that is there now."""
    for own in job.weights:
        _check_plan(own, folder, job.output)


def _check_plan(own: _Weights, folder: Path, output: Output) -> None:
    written = set(own.plan.written)
    ends: dict[str, int] = {own.plan.moved_name: own.plan.moved_bytes} if own.plan.moved_name else {}
    for slots in own.inventory.slots.values():
        for slot in slots:
            if isinstance(slot.tensor, ir.ExternalTensor):
                location, (offset, length) = place(slot.tensor, own.inventory, own.plan)
                end = (offset or 0) + (length or slot.tensor.nbytes)
                ends[location] = max(ends.get(location, 0), end)
    for location, end in ends.items():
        path = (folder if location in written else output.folder) / location
        size = path.stat().st_size
        if end > size:
            raise WriteError(
                "weights file is shorter than its tensors", where=str(path), found=f"{size} bytes", wanted=f"{end}"
            )


def _prove(job: _Job, folder: Path) -> None:
    """Runs onnx's checker on each file as written; an empty file stands in for each data file referred to."""
    referred = [location for own in job.weights for _, location in own.plan.referred]
    for location in referred:
        stand_in = folder / location
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        stand_in.touch()
    checked: set[str] = set()
    for name in job.program.names:
        clone = job.program.clones.get(name)
        try:
            # clones have one list of nodes: the checker need not see it again
            check = check_file if clone is None or clone.base not in checked else parse_file
            check(folder / f"{name}.onnx")
            checked |= {clone.base} if clone is not None else set()
        except Exception as error:  # ValidationError, or whatever the parser raises
            reason = " ".join(str(error).split())[:300].replace(f"{folder}/", "")
            raise WriteError(f"the result does not pass onnx's checker: {reason}", where=f"graph {name!r}") from error
    for location in referred:
        (folder / location).unlink()


def _index(job: _Job, folder: Path) -> bytes:
    from .describe import describe_program

    sizes = {name: (folder / name).stat().st_size for name in job.names if name != INDEX_NAME}
    referred = {location: source.size for own in job.weights for source, location in own.plan.referred}
    moved = [own.plan.moved_name for own in job.weights if own.plan.moved_name]
    contents = {name: digest_file(folder / name) for name in moved}  # just written: read from memory
    index = describe_program(job.program, job.digests, job.structures, sizes, referred, job.notes, contents)
    return (index.model_dump_json(indent=2) + "\n").encode()


def _write_file(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _system_errors(out: Path, sizes: list[int]) -> Generator[list[int]]:
    """Turns the system's refusals into one line; ``sizes`` receives the bytes of weights that the save needs."""
    try:
        yield sizes
    except OSError as error:
        where = str(error.filename or out)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WriteError(
                "the disk is full",
                where=str(out),
                found=f"{_free_bytes(out)} bytes free",
                wanted=f"{sum(sizes)} bytes for weights, and the graphs",
                hint="Nothing was changed. Free space; in the model's folder or a parent of it no weights are copied.",
            ) from error
        raise WriteError(
            f"saving failed: {error.strerror or error}",
            where=where,
            hint="Nothing was changed; choose another OUT.",
        ) from error


def _free_bytes(out: Path) -> int:
    folder = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    return shutil.disk_usage(folder).free
