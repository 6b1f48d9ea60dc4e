"""convert-states: the carried states change their layout, and masks, positions and lengths with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedFunctionsPass

from ..ir.rewrite.convert import MaskInput, Names, Ops, Options, To, convert
from ..ir.states import find_states
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
       row, or goes (``mask=positions``). A graph without positions gains ``position_ids``. Logits equal within 2e-6.
    2. ``scatter → append``: the cache grows again; positions then run past, past + 1 … without padding (recorded).
    3. ``→ delta``: only the new rows leave the graph, the host owns the cache; ``transpose_keys`` hands keys in and
       out as ``[B, H, size, rows]``. ``delta →`` hands out the whole cache again. Bit-equal.
    4. ``none`` is strip-states.

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
        inside = any(state.function for state in find_states(model))
        self._convert(model.clone(), inside)
        return self._convert(model, inside)

    def _convert(self, model: ir.Model, inside: bool) -> GraphResult:
        """Inlines the functions that hold a cache, then converts; run on a copy first, as a refusal may come late."""
        counts = {"functions inlined": inline_cache_functions(model)} if inside else {}
        options = Options(
            self.name, self.ops, self.mask, self.names, self.ctx or _LENGTHS[self.to], self.transpose_keys
        )
        outcome = convert(model, self.to, options)
        if outcome.states:
            RemoveUnusedFunctionsPass()(model)
            counts |= {"states": outcome.states}
        notes = outcome.notes if outcome.states or outcome.notes else ("no carried state to convert in this graph",)
        return GraphResult(model, bool(counts), counts=counts, notes=notes, assumptions=outcome.assumptions)


_LENGTHS = {To.SCATTER: "ctx_len", To.APPEND: "past_len", To.DELTA: "past_len"}
