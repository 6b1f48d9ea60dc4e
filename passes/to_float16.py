"""to-float16 lets operators compute in half precision where their numbers are proved to fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import onnx_ir as ir

from ..ir.core.errors import PassRefused
from ..ir.program.contracts.half import HalfPrecision
from ..ir.program.program import Program
from ..ir.quantization import EncodingTable, read_encodings
from ..ir.quantization.carried import table_of
from ..ir.quantization.half import UNKNOWN, Split, split_for_half
from ..ir.quantization.qdq import plain_pairs
from ..ir.quantization.variants import Rules
from ..ir.rewrite.half_types import make_half
from ..ir.shapes.float_values import element_types
from ..ir.states import find_states
from .base import GraphResult, Pass, Report, merge_results

DTYPES = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}
CLOSE = {"float16": 2e-3, "bfloat16": 2e-2}  # of the largest value: eight times what one rounding leaves
SHOWN = 2  # operators that a note names


@dataclass(frozen=True)
class ToFloat16(Pass):
    """Lets operators compute in half precision; each that stays in float32 does so for a reason that is told.

    Before → after::

        y = MatMul(x, w)   →   y = Cast(MatMul(Cast(x), w as halves))

    1. What reads or gives numbers that were seen beyond the type's largest stays: ``ranges`` of `onnx-passes
       calibrate` (or the program's own) prove that the others fit, with ``headroom`` for texts that were not seen.
       bfloat16 has float32's exponents and needs no ranges.
    2. Norms, softmax and sums over an axis stay: halves lose their sums. So does what depends on positions and masks
       alone: an index beyond 2048 is no half, and the fill of a mask would be minus infinity.
    3. A mask's fill (-3.4e38, -inf) stays float32 from where it is made to the softmax behind it: no mask becomes
       infinite that was not, and rows that are wholly masked give what they gave.
    4. Graph inputs and outputs keep their types; custom-io says how they cross to a device.
    5. Weights become halves when they are written, one at a time.

    Left alone: local functions and branches, whose bodies compute as before. Refused: no ranges for float16.

    Attributes:
        ranges: A file of ranges or encodings; without, those that the program carries.
        dtype: float16 or bfloat16.
        keep: Nodes that stay in float32, by name or operator type; `*` and `?` stand for any characters.
        headroom: How many times what was seen must fit.
    """

    name: ClassVar[str] = "to-float16"

    ranges: Path | None = None
    dtype: Literal["float16", "bfloat16"] = "float16"
    keep: tuple[str, ...] = ()
    headroom: float = 2.0

    def call(self, model: ir.Model) -> GraphResult:
        """Runs on a program of this one graph."""
        report = self.run(Program(graphs={"graph": model}))
        return GraphResult(model, report.modified, counts=report.counts, notes=report.notes, contracts=report.contracts)

    def run(self, program: Program) -> Report:
        """Decides for every graph first; PassRefused before anything is changed."""
        table = read_encodings(self.ranges) if self.ranges is not None else table_of(program)
        if not table.names() and self.dtype == "float16":
            raise PassRefused(
                "nothing tells which numbers fit float16",
                where=self.name,
                wanted="the ranges of the graph's tensors",
                hint="onnx-passes calibrate MODEL --tokens FILE -o e.json, then to-float16{ranges=e.json}.",
            )
        rules = Rules(keep=self.keep)
        rules.check_keep(program.graphs.values(), where=self.name)
        splits = {name: self._split(model, table, rules) for name, model in program.graphs.items()}
        self._check_known(splits, table)
        return merge_results([(name, self._apply(program.graph(name), split)) for name, split in splits.items()])

    def _split(self, model: ir.Model, table: EncodingTable, rules: Rules) -> Split:
        with plain_pairs(model):
            states = find_states(model)
            return split_for_half(model, states, table, DTYPES[self.dtype], rules, self.headroom)

    def _check_known(self, splits: dict[str, Split], table: EncodingTable) -> None:
        """Ranges of another model would keep everything in float32, and that would look like caution."""
        unknown = sum(len(split.kept.get(UNKNOWN, ())) for split in splits.values())
        known = sum(len(split.half) for split in splits.values())
        if self.dtype == "float16" and unknown and not known:
            raise PassRefused(
                "the ranges name no tensor of the program",
                where=self.name,
                found=", ".join(table.names()[:4]),
                hint="Are they another model's? transfer-encodings matches by structure where names differ.",
            )

    def _apply(self, model: ir.Model, split: Split) -> GraphResult:
        casts = make_half(model, split.half, element_types(model), DTYPES[self.dtype], self.name) if split.half else 0
        notes = tuple(f"{len(nodes)} stay in float32: {why} ({_names(nodes)})" for why, nodes in split.kept.items())
        kept = sum(len(nodes) for nodes in split.kept.values())
        counts = {"half": len(split.half), "float32": kept, "casts": casts}
        contracts = (HalfPrecision(self.dtype, CLOSE[self.dtype]),) if split.half else ()
        return GraphResult(model, bool(split.half), counts=counts, notes=notes, contracts=contracts)


def _names(nodes: list[ir.Node]) -> str:
    shown = ", ".join(f"{node.op_type} {node.name!r}" for node in nodes[:SHOWN])
    return shown + (", …" if len(nodes) > SHOWN else "")
