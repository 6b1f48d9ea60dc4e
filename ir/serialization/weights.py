"""Each tensor of a saved program is referred to, copied once with its file, or moved out of the graph."""

from __future__ import annotations

import enum
import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir

from ..core.errors import OutputError, UnknownNameError, WriteError
from ..core.tensors import InitializerSlot, Slot, moved_tensor, tensor_slots
from .excerpt import Part, moved, parts_of, size_of
from .sparse_copy import Progress, copy_file, copy_parts

MOVE_BYTES = 1024  # initializers larger than this never stay inside a graph's file
BIG_BYTES, BIG_ALIGN, SMALL_ALIGN = 64 << 10, 4096, 64
WEIGHTS_NAME = "weights.data"


class WeightsMode(enum.Enum):
    """What becomes of external weights: refer where possible and else copy, always refer, or always copy."""

    AUTO = "auto"
    REFER = "refer"
    COPY = "copy"

    @classmethod
    def of(cls, mode: WeightsMode | str) -> WeightsMode:
        """The mode that ``mode`` names; UnknownNameError where none does."""
        if isinstance(mode, cls):
            return mode
        try:
            return cls(mode)
        except ValueError:
            raise UnknownNameError("weights mode", str(mode), [m.value for m in cls]) from None


@dataclass(frozen=True)
class Source:
    """A data file that tensors lie in: ``path`` without links, ``name`` as spelled, ``size`` in bytes."""

    path: Path
    name: str
    size: int


@dataclass
class Inventory:
    """The tensors of a program that will not lie inside a graph's file."""

    slots: dict[str, list[Slot]] = field(default_factory=dict[str, list[Slot]])  # graph -> slots that change
    sources: dict[str, Source] = field(default_factory=dict[str, Source])  # path as a tensor spells it -> file
    embedded: list[ir.TensorProtocol] = field(default_factory=list[ir.TensorProtocol])  # to be moved out, each once
    same: dict[int, int] = field(default_factory=dict[int, int])  # id of a tensor -> index in ``embedded``

    @property
    def files(self) -> list[Source]:
        """The data files, each once, in order of first use."""
        return list({source.path: source for source in self.sources.values()}.values())


def take_inventory(graphs: Mapping[str, ir.Model]) -> Inventory:
    """Finds external tensors and initializers over 1 KiB; WriteError where a data file went away since the load."""
    inventory = Inventory()
    for name, model in graphs.items():
        inventory.slots[name] = [slot for slot in tensor_slots(model) if _leaves(slot)]
        for slot in inventory.slots[name]:
            if isinstance(slot.tensor, ir.ExternalTensor):
                _note_source(inventory, slot.tensor)
    _note_embedded(inventory)
    return inventory


def _leaves(slot: Slot) -> bool:
    tensor = slot.tensor
    if isinstance(tensor, ir.ExternalTensor):
        return True
    return isinstance(slot, InitializerSlot) and tensor.dtype is not ir.DataType.STRING and tensor.nbytes > MOVE_BYTES


def _note_source(inventory: Inventory, tensor: ir.ExternalTensor) -> None:
    path = tensor.path
    if path not in inventory.sources:
        real = Path(os.path.realpath(path))
        try:
            size = real.stat().st_size
        except OSError as error:
            raise WriteError(
                "weights file is gone since the graph was loaded", found=path, where=tensor.name
            ) from error
        inventory.sources[path] = Source(real, Path(path).name, size)
    size = inventory.sources[path].size
    end = (tensor.offset or 0) + (tensor.length or 0)
    if end > size:
        raise WriteError(
            "weights file became shorter since the graph was loaded", where=path, found=f"{size} bytes", wanted=f"{end}"
        )


def _note_embedded(inventory: Inventory) -> None:
    """Lists each embedded tensor once: the same object, or in several graphs the same bytes."""
    tensors = [
        slot.tensor
        for slots in inventory.slots.values()
        for slot in slots
        if not isinstance(slot.tensor, ir.ExternalTensor)
    ]
    unique = list({id(tensor): tensor for tensor in tensors}.values())
    sizes: dict[int, int] = {}
    for tensor in unique:
        sizes[tensor.nbytes] = sizes.get(tensor.nbytes, 0) + 1
    several = len(inventory.slots) > 1
    known: dict[object, int] = {}
    for tensor in unique:
        # bytes are hashed only where several graphs could hold the same: clones share objects and need none
        key = (
            (tensor.nbytes, hashlib.sha256(tensor.tobytes()).digest())
            if several and sizes[tensor.nbytes] > 1
            else id(tensor)
        )
        if key not in known:
            known[key] = len(inventory.embedded)
            inventory.embedded.append(tensor)
        inventory.same[id(tensor)] = known[key]


@dataclass
class Plan:
    """Every data file's location as the graphs will spell it, and what has to be written for it."""

    locations: dict[Path, str] = field(default_factory=dict[Path, str])
    copies: list[tuple[Source, str]] = field(default_factory=list[tuple[Source, str]])
    referred: list[tuple[Source, str]] = field(default_factory=list[tuple[Source, str]])
    parts: dict[Path, tuple[Part, ...]] = field(default_factory=dict[Path, "tuple[Part, ...]"])  # of files not whole
    moved_name: str = ""
    spans: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])  # (offset, length) of each embedded

    @property
    def moved_bytes(self) -> int:
        """The size of the file of moved tensors."""
        return sum(self.spans[-1]) if self.spans else 0

    @property
    def copied_bytes(self) -> int:
        """How many bytes of data files are copied."""
        return sum(self._copied(source) for source, _ in self.copies)

    @property
    def left_out(self) -> list[tuple[str, int]]:
        """The names of the copies that leave something out, and how many bytes."""
        return [(name, source.size - self._copied(source)) for source, name in self.copies if source.path in self.parts]

    def _copied(self, source: Source) -> int:
        return size_of(self.parts[source.path]) if source.path in self.parts else source.size

    @property
    def written(self) -> list[str]:
        """Names of the data files that the save writes, in order."""
        return [name for _, name in self.copies] + ([self.moved_name] if self.moved_name else [])


def make_plan(inventory: Inventory, out: Path, mode: WeightsMode, taken: Iterable[str], file: str = "") -> Plan:
    """Decides for each data file; ``taken`` are names in ``out`` that must not be written.

    ``file`` is what copies and moved tensors are called; by default they have the sources' names, and one of our own.

    Raises OutputError where ``refer`` is asked for and a file cannot be referred to from ``out``.
    """
    plan, names = Plan(), {name.casefold() for name in taken}
    used = _used(inventory)
    for source in inventory.files:
        reason = "copying was asked for" if mode is WeightsMode.COPY else why_not_referred(source.path, out)
        if not reason:
            plan.locations[source.path] = source.path.relative_to(out).as_posix()
            plan.referred.append((source, plan.locations[source.path]))
            continue
        if mode is WeightsMode.REFER:
            raise OutputError(
                f"weights cannot be referred to: {reason}",
                where=str(source.path),
                hint="Use --weights copy, or an OUT that is the model's folder or a parent of it.",
            )
        name = _free_name(file or source.name, names)
        plan.locations[source.path] = name
        plan.copies.append((source, name))
        parts = _excerpt(used[source.path], source.size) if file else parts_of(used[source.path], source.size)
        plan.parts |= {source.path: parts} if parts is not None else {}
    if inventory.embedded:
        plan.moved_name = _free_name(file or WEIGHTS_NAME, names)
        plan.spans = _lay_out(inventory.embedded)
    return plan


def file_bytes(tensors: Iterable[ir.TensorProtocol]) -> int:
    """The bytes of the data files that a copy of these tensors alone has, their alignment counted."""
    inventory = Inventory()
    used: dict[str, list[tuple[int, int]]] = {}
    for tensor in tensors:
        if isinstance(tensor, ir.ExternalTensor):
            start = tensor.offset or 0
            used.setdefault(str(tensor.path), []).append((start, start + (tensor.length or tensor.nbytes)))
        elif tensor.dtype is not ir.DataType.STRING and tensor.nbytes > MOVE_BYTES:
            inventory.embedded.append(tensor)
    spans = _lay_out(inventory.embedded)
    total = sum(spans[-1]) if spans else 0
    for path, ranges in used.items():
        size = Path(path).stat().st_size
        parts = _excerpt(ranges, size)
        total += size if parts is None else size_of(parts)
    return total


def _excerpt(used: Iterable[tuple[int, int]], size: int) -> tuple[Part, ...] | None:
    """The parts of a file that a data file of one graph's own takes: the tensors, and no bytes between them."""
    return parts_of(used, size, dead=SMALL_ALIGN, least=BIG_BYTES)


def _used(inventory: Inventory) -> dict[Path, list[tuple[int, int]]]:
    """For each data file the (start, end) of every tensor that lies in it."""
    used: dict[Path, list[tuple[int, int]]] = {}
    for slots in inventory.slots.values():
        for tensor in (slot.tensor for slot in slots):
            if isinstance(tensor, ir.ExternalTensor):
                start = tensor.offset or 0
                path = inventory.sources[tensor.path].path
                used.setdefault(path, []).append((start, start + (tensor.length or tensor.nbytes)))
    return used


def why_not_referred(data: Path, out: Path) -> str:
    """Why graphs in ``out`` cannot refer to ``data`` (no links in either); empty where they can."""
    if not data.is_relative_to(out):
        return f"it lies outside {out}, and ONNX allows data only in the model's folder or below it"
    if data.stat().st_nlink > 1:
        return "it has several hard links, which ONNX runtimes refuse"
    return ""


def _free_name(name: str, taken: set[str]) -> str:
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    candidate, number = name, 1
    while candidate.casefold() in taken:
        number += 1
        candidate = f"{stem}-{number}{suffix}"
    taken.add(candidate.casefold())
    return candidate


def _lay_out(tensors: list[ir.TensorProtocol]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    position = 0
    for tensor in tensors:
        align = BIG_ALIGN if tensor.nbytes >= BIG_BYTES else SMALL_ALIGN
        position = -(-position // align) * align
        spans.append((position, tensor.nbytes))
        position += tensor.nbytes
    return spans


def write_weights(plan: Plan, inventory: Inventory, folder: Path, on_progress: Progress) -> None:
    """Writes copies and moved tensors into ``folder``, one tensor in memory at a time; OSError where it cannot."""
    for source, name in plan.copies:
        parts = plan.parts.get(source.path)
        copy = copy_file if parts is None else partial(copy_parts, parts=parts)
        if copy(source.path, folder / name, label=name, on_progress=on_progress) != source.size:
            raise WriteError("weights file changed while it was copied", where=str(source.path))
    if not plan.moved_name:
        return
    with (folder / plan.moved_name).open("xb") as file:
        for tensor, (offset, length) in zip(inventory.embedded, plan.spans, strict=True):
            file.write(bytes(offset - file.tell()))
            _write_tensor(tensor, file)
            if file.tell() != offset + length:
                raise WriteError(
                    "tensor has not the bytes of its type and shape", where=tensor.name or "", wanted=length
                )
            on_progress(plan.moved_name, offset + length, plan.moved_bytes)
        file.flush()
        os.fsync(file.fileno())


def _write_tensor(tensor: ir.TensorProtocol, file: BinaryIO) -> None:
    """Streams ``tensor``; its class may know better than through one bytes object."""
    stream: Callable[[BinaryIO], None] | None = getattr(tensor, "tofile", None)
    if stream is None:
        file.write(tensor.tobytes())
    else:
        stream(file)


@contextmanager
def placed(slots: list[Slot], inventory: Inventory, plan: Plan) -> Generator[None]:
    """Inside, the tensors in ``slots`` are external ones at their planned places; outside, the graph is as before."""
    try:
        for slot in slots:
            location, span = place(slot.tensor, inventory, plan)
            slot.put(moved_tensor(slot.tensor, slot.name, location, span, base_dir=""))
        yield
    finally:
        for slot in slots:
            slot.put(slot.tensor)


def place(tensor: ir.TensorProtocol, inventory: Inventory, plan: Plan) -> tuple[str, tuple[int | None, int | None]]:
    """The data file that the graphs will name for a tensor, and its (offset, length) in it as it is written there."""
    if isinstance(tensor, ir.ExternalTensor):
        path = inventory.sources[tensor.path].path
        parts = plan.parts.get(path)
        if parts is None:
            return plan.locations[path], (tensor.offset, tensor.length)
        return plan.locations[path], (moved(parts, tensor.offset or 0), tensor.length or tensor.nbytes)
    return plan.moved_name, plan.spans[inventory.same[id(tensor)]]
