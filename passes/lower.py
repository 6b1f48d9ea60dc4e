"""lower replaces fused and vendor operators by standard ones that the target's compiler takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, RemoveUnusedOpsetsPass

from ..ir.core.scopes import all_nodes
from ..ir.manifests.targets import introduced, table_of
from ..ir.program.contracts.lowered import contracts_of
from ..ir.rewrite.lower import Layout, lower_graph
from ..ir.rewrite.no_index import make_indices_portable, uses_no_index
from ..ir.rewrite.ownership import mark_unclaimed
from .base import GraphResult, Pass


class Missing(Enum):
    """What becomes of an operator that the target does not take and no row replaces."""

    REFUSE = "refuse"
    LEAVE = "leave"


@dataclass(frozen=True)
class Lower(Pass):
    """Replaces the operators that a target does not take by standard ones that compute the same.

    Before → after::

        GroupQueryAttention(qkv, past, seqlens)  →  Split, rotary, Concat(past, k), MatMul, mask, Softmax, MatMul
        SkipSimplifiedLayerNormalization         →  Add, and an RMS norm of primitive operators
        MatMulNBits(a, blocks)                   →  MatMul(a, Transpose(DequantizeLinear(blocks)))

    1. What runtimes fuse (com.microsoft): attentions with packed projections, rotary embedding, windows, caps, sinks,
       biases, integer caches; norms, activations, block-quantized weights (blocks stay packed from opset 21 on where
       the target takes them, else they are dequantized once), short convolutions and linear attention.
    2. What is newer than the target's opset (ai.onnx 20 to 28): Attention, RotaryEmbedding, RMSNormalization,
       TensorScatter, CausalConvWithState, LinearAttention, Swish, SwiGLU, Gelu.
    3. Local functions are inlined where the target takes none.
    4. INT32_MAX as an index, which reads and writes nothing on one vendor's device, becomes 0 where it is read from
       and -1 where it is written to: rows that the graph masks, and the last row of the cache.
    5. A cache inside an operator becomes one that grows (``layout=append``), or one that is written in place at each
       sequence's own length (``scatter``): convert-states, clone-decode and single-shot go on from there.

    Left alone: everything the target takes. Refused, all at once with counts: operators that no row replaces, and
    options of one that no row holds. Assumed, where a fused attention counts the tokens of a mask: padding stands
    behind them, and sequences of one batch that grow together are equally long.

    Attributes:
        target: Whose operators are kept: standard, or a compiler's name.
        ops: Operators to replace although the target takes them.
        opset: The newest ai.onnx opset whose operators are kept; 0 for the target's own.
        layout: What becomes of a fused cache; ``auto`` is written in place where past and present have the same rows.
        missing: ``leave`` keeps what cannot be replaced.
    """

    name: ClassVar[str] = "lower"

    target: str = "standard"
    ops: tuple[str, ...] = ()
    opset: int = 0
    layout: Layout = Layout.AUTO
    missing: Missing = Missing.REFUSE

    def call(self, model: ir.Model) -> GraphResult:
        """Lowers one graph; raises PassRefused, with nothing changed, where something has no replacement."""
        table = table_of(self.target)
        inlined = len(model.functions) if model.functions and not table.functions else 0
        foreign = not table.reads_nothing and uses_no_index(model)
        takes = self._takes(model)
        if (
            not inlined
            and not foreign
            and all(takes(node) or node.op_identifier() in model.functions for node in all_nodes(model))
        ):
            return GraphResult(model, False)
        leave = self.missing is Missing.LEAVE
        self._lower(model.clone(), inlined > 0, foreign, leave)
        return self._lower(model, inlined > 0, foreign, leave)

    def _lower(self, model: ir.Model, inline: bool, foreign: bool, leave: bool) -> GraphResult:
        counts: dict[str, int] = {}
        if inline:
            counts["functions inlined"] = len(model.functions)
            own = set(all_nodes(model))
            InlinePass()(model)
            mark_unclaimed((node for node in all_nodes(model) if node not in own), self.name)
        lowered = lower_graph(model, self._takes(model), owner=self.name, layout=self.layout, leave=leave)
        counts |= lowered.counts
        if foreign:
            indices = make_indices_portable(model, self.name)
            counts |= {f"indices of a {kind}": number for kind, number in indices.items() if number}
        RemoveUnusedOpsetsPass()(model)
        contracts = contracts_of(lowered.tolerance, lowered.right_padded, lowered.whole_pasts) if lowered.counts else ()
        return GraphResult(model, bool(counts), counts=counts, warnings=lowered.left, contracts=contracts)

    def _takes(self, model: ir.Model) -> Callable[[ir.Node], bool]:
        table = table_of(self.target)
        opset = model.opset_imports.get("", 0)

        def takes(node: ir.Node) -> bool:
            if node.op_type in self.ops:
                return False
            if self.opset and not node.domain and introduced(node.op_type) > self.opset:
                return False
            return not table.refuses(node, opset)

        return takes
