"""convert-states changes the layout of carried states, and masks, positions and lengths with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedFunctionsPass

from ..ir.interface.analysis import Known, analysis_of, forget
from ..ir.program.contract import Contract
from ..ir.program.contracts.interface import RenamedIO
from ..ir.program.contracts.positions import CacheRowPositions, ConsecutivePositions
from ..ir.program.contracts.states import LayoutChanged
from ..ir.rewrite.clamp_positions import clamp_positions
from ..ir.rewrite.convert import MaskInput, Names, Ops, Options, Outcome, To, convert
from ..ir.rewrite.restore import restored_on_failure
from ..ir.states import State
from ..ir.states.control_flow_outputs import inline_cache_functions
from .base import GraphResult, Pass
from .strip_states import StripStates


@dataclass(frozen=True)
class ConvertStates(Pass):
    """Rewrites the carried states into another layout, so that a graph of any exporter suits a static-shape device.

    Before → after::

        present = Concat(past, k)               →  retained = ScatterND(past, rows(position_ids), k)
        mask over past + seq                    →  mask over ctx_len cache rows
        Range(past, past + seq)                 →  position_ids [B, S], -1 for padding

    1. ``append → scatter``: the cache has ``ctx`` rows and is written at positions, by ScatterND, TensorScatter
       (``ops=tensorscatter``, the opset raised to 24) or the functions CtxScatter and CtxGather (``ops=ctx``). A
       padded row never changes a live one and no index is out of range. ``attention_mask`` gets a column a cache
       row, or goes (``mask=positions``). A graph without positions gains ``position_ids``. -1 is
       kept from RotaryEmbedding, as by clamp-positions. Logits equal within 2e-6.
    2. ``scatter → append``: the cache grows again; positions then run past, past + 1 … without padding (recorded).
    3. ``→ delta``: only the new rows leave the graph, the host owns the cache; ``transpose_keys`` hands keys in and
       out as ``[B, H, size, rows]``. ``delta →`` hands out the whole cache again. Bit-equal.
    4. ``none`` is strip-states.
    5. ``names=retained`` names the two ends of every carried state alike, of those too that need no conversion.

    Left alone, and said so: fused operators (past = total = ctx with a fixed mask is their static form),
    cross-attention, and recurrent states where no padding comes in. Refused: lengths baked into the graph, caches that
    no mask of query positions hides, several caches in one tensor, recurrent states beside a cache to be padded, a
    past's length used in a way that is not understood. Every length of the result is proved against the original's
    before the graph is changed.

    Attributes:
        to: The layout wanted.
        ops: What writes rows.
        mask: What becomes of a two-dimensional attention mask.
        names: ``retained`` calls states ``past_key.0`` and ``past_key.0_RetainedState``.
        ctx: The symbol of a cache's rows, or their number; of the growing length where the target is ``append``.
        transpose_keys: Keys in and out with their last axes changed (delta).
    """

    name: ClassVar[str] = "convert-states"
    preserves: ClassVar[frozenset[Known]] = frozenset({Known.STATES})  # those found when all was edited

    to: To = To.SCATTER
    ops: Ops = Ops.ONNX
    mask: MaskInput = MaskInput.ROWS
    names: Names = Names.KEEP
    ctx: str = ""
    transpose_keys: bool = False

    def call(self, model: ir.Model) -> GraphResult:
        """Converts one graph; raises PassRefused, with nothing changed, where that would not be exact."""
        if self.to is To.NONE:
            return StripStates().call(model)
        states = analysis_of(model).states
        with restored_on_failure(model):  # a refusal may come late, when the graph is half another
            return self._convert(model, states)

    def _convert(self, model: ir.Model, states: Sequence[State]) -> GraphResult:
        """Inlines the functions that hold a cache, then converts."""
        inside = any(state.function for state in states)
        counts = {"functions inlined": inline_cache_functions(model)} if inside else {}
        options = Options(
            self.name, self.ops, self.mask, self.names, self.ctx or _LENGTHS[self.to], self.transpose_keys
        )
        before = [s for s in states if s.input is not None and s.output is not None]
        moving = [(s.input.name or "", s.output.name or "", s.layout.value) for s in before if s.input and s.output]
        outcome = convert(model, self.to, options, None if inside else states)
        if outcome.states:
            RemoveUnusedFunctionsPass()(model)
            counts |= {"states": outcome.states}
            if self.to is To.SCATTER and (clamped := clamp_positions(model, self.name)):
                counts |= {"positions clamped": clamped}
        elif outcome.renamed:
            counts |= {"renamed": len(outcome.renamed)}
        forget(model)
        notes = outcome.notes if outcome.states or outcome.notes else ("no carried state to convert in this graph",)
        return GraphResult(
            model, bool(counts), counts=counts, notes=notes, contracts=_contracts(model, moving, outcome)
        )


def _contracts(model: ir.Model, before: Sequence[tuple[str, str, str]], outcome: Outcome) -> tuple[Contract, ...]:
    """The states whose layout changed, what positions must hold now, and names; ``before`` has names and layouts."""
    if not outcome.states:
        return (RenamedIO(tuple(outcome.renamed.items())),) if outcome.renamed else ()
    new = {old: outcome.renamed.get(old, old) for old, _, _ in before}
    now = {state.input.name: state.layout.value for state in analysis_of(model).states if state.input is not None}
    changed = [(old, out, was, now.get(new[old])) for old, out, was in before if now.get(new[old]) not in (None, was)]
    layouts: list[Contract] = []
    for pair in dict.fromkeys((was, after) for _, _, was, after in changed):
        own = [(old, out) for old, out, was, after in changed if (was, after) == pair]
        inputs, outputs = (tuple(names[side] for names in own) for side in (0, 1))
        layouts.append(LayoutChanged(inputs, outputs, before=pair[0], after=pair[1] or ""))
    renames = (RenamedIO(tuple(outcome.renamed.items())),) if outcome.renamed else ()
    positions = (
        *(ConsecutivePositions(name) for name in outcome.consecutive),
        *(CacheRowPositions(name) for name in outcome.cache_rows),
    )
    return (*layouts, *renames, *positions)


_LENGTHS = {To.SCATTER: "ctx_len", To.APPEND: "past_len", To.DELTA: "past_len"}
