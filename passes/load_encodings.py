"""load-encodings makes what a file says of tensors the program's encodings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir

from ..ir.core.errors import PassRefused
from ..ir.interface.analysis import analysis_of
from ..ir.program.program import Program
from ..ir.quantization import Encoding, EncodingsInvalid, EncodingTable, read_encodings
from ..ir.quantization.carried import put_table, resolve_axis, table_of, tensors_of
from ..ir.quantization.kv_scales import layer_and_kind
from ..ir.quantization.packed_weights import Unread, match_packed
from ..ir.quantization.qdq import read_qdq
from ..ir.quantization.weight_pairs import Matched, match_weights
from .base import GraphResult, Pass, Report

SHOWN = 4  # names that a note repeats


@dataclass(frozen=True)
class LoadEncodings(Pass):
    """Reads encodings or watched ranges of any known format and gives them to the program; no graph changes.

    1. Formats: AIMET 0.6.1, 1.0.0, 2.0.0, 2.1.0, QNN overrides, onnxruntime's TensorsData, the cache scales of the
       generative runtime, this package's own, known by what it holds; and the pairs in a quantized ``.onnx`` file,
       and its MatMulNBits weights, by the place of the product.
    2. A tensor that the file names takes the file's word; what the program knew of others stays.
    3. A per-channel encoding whose file does not tell the axis gets it from the weight's use, else from its shape;
       refused where both leave two axes open.
    4. Encodings that name no tensor of any graph are left out, and reported; a warning where they are most of the file.

    Attributes:
        file: The file.
        ctx: The context length of the deployment; a warning where the file was calibrated on shorter texts.
    """

    name: ClassVar[str] = "load-encodings"

    file: Path
    ctx: int | None = None

    def call(self, model: ir.Model) -> GraphResult:
        """Runs on a program of this one graph; the graph stays as it is."""
        report = self.run(Program(graphs={"graph": model}))
        return GraphResult(model, False, counts=report.counts, notes=report.notes, warnings=report.warnings)

    def run(self, program: Program) -> Report:
        """Loads; EncodingsInvalid says what is wrong with the file, PassRefused that it speaks of another model."""
        loaded, matched, unread = _read(self.file, list(program.graphs.values()))
        _name_caches(loaded, list(program.graphs.values()))
        tensors = tensors_of(program.graphs.values())
        strangers = [name for name in loaded.names() if name not in tensors]
        if len(strangers) == len(loaded.names()):
            raise PassRefused(
                f"{self.file} names no tensor of the program",
                where=self.name,
                found=", ".join(strangers[:SHOWN]) or "no encoding at all",
                hint="Is it another model's? transfer-encodings matches by structure where names differ.",
            )
        before, table = dict(program.encodings), table_of(program)
        for name in loaded.names():
            if name in tensors:
                _take(table, loaded, name, tensors[name], str(self.file))
        put_table(program, table)
        return Report(
            modified=program.encodings != before,
            counts={"encodings": len(loaded.encodings), "ranges": len(loaded.ranges), "strangers": len(strangers)},
            notes=(
                *_matched_notes(matched, loaded),
                *(() if _mostly(strangers, loaded) else _notes(strangers)),
                *_width_note(loaded),
            ),
            warnings=(
                *_matched_warnings(matched),
                *_unread_warning(unread),
                *_foreign(strangers, loaded, self.file.name),
                *_length_warning(loaded, self.ctx),
            ),
        )


def _read(path: Path, targets: Sequence[ir.Model]) -> tuple[EncodingTable, list[Matched], list[Unread]]:
    """The table of a file of encodings, or of a quantized graph, its weights here, and those that are not."""
    if path.suffix != ".onnx":
        return read_encodings(path), [], []
    table, matched, unread = EncodingTable(), list[Matched](), list[Unread]()
    for model in Program.load(path).graphs.values():
        table.encodings |= read_qdq(model, where=str(path)).encodings
        matched += match_weights(model, targets, table)
        packed, strange = match_packed(model, targets, table, str(path))
        matched, unread = matched + packed, unread + strange
    return table, matched, unread


def _matched_notes(matched: Sequence[Matched], table: EncodingTable) -> Iterator[str]:
    """What was matched by place, and what other tools and targets do not take."""
    if matched:
        one = matched[0]
        yield f"{len(matched)} weight pairs are matched by the node that reads them: {one.pair} is {one.weight}, …"
    turned = [m.weight for m in matched if table.encodings[m.weight].turned]
    if turned:
        yield (
            f"{len(turned)} weights have scales below 0 ({', '.join(turned[:SHOWN])}), as onnxruntime writes them: "
            "DequantizeLinear takes them, AIMET and QNN do not, so that encodings.json leaves them out"
        )


def _matched_warnings(matched: Sequence[Matched]) -> Iterator[str]:
    """Integers that the float weight does not give: the file's weights were not rounded to nearest, or are others."""
    for one in matched:
        if one.others:
            yield (
                f"{one.others} of {one.total} integers of {one.pair} are not those of {one.weight} rounded to nearest: "
                "insert-qdq writes the latter"
            )


def _unread_warning(unread: Sequence[Unread]) -> tuple[str, ...]:
    """A warning that counts the packed weights without an encoding, with the reason of the first ones."""
    if not unread:
        return ()
    told = "; ".join(f"{one.weight}: {one.why}" for one in unread[:SHOWN])
    return (f"{len(unread)} weights of MatMulNBits give no encoding: {told}",)


def _take(table: EncodingTable, loaded: EncodingTable, name: str, value: ir.Value, where: str) -> None:
    table.encodings.pop(name, None)
    table.ranges.pop(name, None)
    if name in loaded.encodings:
        table.encodings[name] = _complete(name, loaded.encodings[name], value, where)
    if name in loaded.ranges:
        table.ranges[name] = loaded.ranges[name]


def _complete(name: str, encoding: Encoding, value: ir.Value, where: str) -> Encoding:
    found = resolve_axis(encoding, value)
    if found is None:
        raise EncodingsInvalid(
            f"tensor {name!r}: the file does not tell which axis its {len(encoding.scale)} scales belong to",
            where=where,
            found=f"shape {value.shape}",
            hint="Write the file as AIMET 2.0.0, which tells the axis.",
        )
    return found


def _name_caches(loaded: EncodingTable, models: Sequence[ir.Model]) -> None:
    """Gives entries that name a layer's keys or values the names of the states' outputs."""
    wanted = {place: name for name in loaded.encodings if (place := layer_and_kind(name)) is not None}
    if not wanted:
        return
    for state in (state for model in models for state in analysis_of(model).states):
        value = state.output if state.output is not None else state.input
        name = wanted.get((state.layer, state.kind)) if state.layer is not None else None
        if name is not None and value is not None and value.name:
            loaded.encodings[value.name] = loaded.encodings[name]
    used = {id(encoding) for name, encoding in loaded.encodings.items() if layer_and_kind(name) is None}
    for name in wanted.values():
        if id(loaded.encodings[name]) in used:
            del loaded.encodings[name]


def _mostly(strangers: Sequence[str], loaded: EncodingTable) -> bool:
    return 2 * len(strangers) > len(loaded.names())


def _foreign(strangers: Sequence[str], loaded: EncodingTable, file: str) -> tuple[str, ...]:
    """A warning where most of a file belongs to another export, or to a part of the model that is not here."""
    if not _mostly(strangers, loaded):
        return ()
    return (
        f"{len(strangers)} of {len(loaded.names())} encodings of {file} name no tensor of this graph "
        f"({', '.join(strangers[:SHOWN])}, …): a file of another export? transfer-encodings carries it over from the "
        "program it was made with",
    )


def _notes(strangers: Sequence[str]) -> tuple[str, ...]:
    if not strangers:
        return ()
    more = f" and {len(strangers) - SHOWN} more" if len(strangers) > SHOWN else ""
    return (f"{len(strangers)} encodings name no tensor and were left out: {', '.join(strangers[:SHOWN])}{more}",)


def _width_note(table: EncodingTable) -> tuple[str, ...]:
    """A note where ranges are the best for one width: only mse weighs steps against what is cut off."""
    facts = table.calibration
    if facts is None or facts.method != "mse" or facts.bits is None:
        return ()
    return (f"ranges were chosen by mse for {facts.bits} bits: calibrate --bits says for how many",)


def _length_warning(table: EncodingTable, ctx: int | None) -> tuple[str, ...]:
    """A warning where rotated keys will meet positions that the calibration never reached."""
    longest = table.calibration.longest if table.calibration is not None else None
    if ctx is None or longest is None or longest >= ctx:
        return ()
    return (
        f"calibrated on texts of at most {longest} tokens, deployed with {ctx}: ranges of rotated keys grow with the "
        "position; calibrate on longer texts or with --k-envelope pair-norm",
    )
