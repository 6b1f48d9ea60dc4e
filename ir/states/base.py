"""What a state is: a tensor carried from one run to the next, and how the graph updates it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import onnx_ir as ir

from ..core.operators import of
from ..symbolic.dims import Dim
from ..symbolic.symbols import dims_of
from .layouts import TRAITS, Layout, Traits
from .ports import SHARES_BUFFER, Port


class Pairing(enum.Enum):
    """Which directions of a state the graph has."""

    BOTH = "both"
    INPUT_ONLY = "input only"
    OUTPUT_ONLY = "output only"


@dataclass(frozen=True)
class Branch:
    """The If whose branch holds a state's update, the graph input that switches it, and what this is compared with.

    ``value`` is empty where the input is a truth value.
    """

    holder: str = ""
    switch: str = "NAME"
    value: str = ""


@dataclass(eq=False)
class State:
    """One carried tensor of one graph; values and nodes are live references into that graph.

    Attributes:
        layer: The decoder layer the name tells, or None.
        kind: ``key``, ``value``, ``conv``, ``recurrent``, ``length`` … as the name tells, or ``state``.
        layout: How the update is expressed.
        input: The graph input (past), None where only an output was found.
        output: The graph output (present), None where only an input was found.
        axis: The axis that grows or is written at positions, on the input's (or output's) own rank; None where none is.
        chain: Layout-only nodes (Cast, Transpose, Reshape …) between the input and ``update``, in order.
        update: The node that combines past and new; None for ``fixed``.
        new: The value that the run adds, as ``update`` takes it.
        carried: The value of ``update`` that holds past and new together.
        positions: The value that says where ``new`` is written (scatter layouts).
        readers: Nodes that gather rows out of ``carried`` by index (scatter layouts).
        selector: The value that selects cache rows by batch (continuous batching), or None.
        reorder: The input that chooses the past's lines of the batch before the update (beam search), or None.
        evidence: One sentence on how the state was recognized.
        branch: The If that holds the update, None where it lies in the graph itself.
        function: The local functions that the state goes through, as ``domain::name, …``; empty where none.
        port: The operands of the operator that carries the state inside (fused layouts), None where none does.
        recurrent: True where that operator is a recurrence: its state has one size, and no axis that grows.
        conv_rows: How many rows the convolution that reads the state looks back, None where none does.
        stacked: True for caches of several layers, or keys and values, in one tensor.
        axis_at_update: The axis on the rank of the update's own operand (scatter layouts), None as ``axis``.
    """

    layout: Layout
    pairing: Pairing = Pairing.BOTH
    layer: int | None = None
    kind: str = "state"
    input: ir.Value | None = None
    output: ir.Value | None = None
    axis: int | None = None
    chain: tuple[ir.Node, ...] = ()
    update: ir.Node | None = None
    new: ir.Value | None = None
    carried: ir.Value | None = None
    positions: ir.Value | None = None
    readers: tuple[ir.Node, ...] = ()
    selector: ir.Value | None = None
    reorder: ir.Value | None = None
    evidence: str = ""
    branch: Branch | None = None
    function: str = ""
    port: Port | None = None
    recurrent: bool = False
    conv_rows: int | None = None
    stacked: bool = False
    axis_at_update: int | None = None

    @property
    def traits(self) -> Traits:
        """What the layout alone tells."""
        return TRAITS[self.layout]

    @property
    def inside(self) -> Layout:
        """The layout that the whole cache has inside the graph, also where only the new rows leave it."""
        if self.layout is not Layout.DELTA:
            return self.layout
        if self.port is not None:
            return Layout.FUSED
        grows = self.update is not None and self.update.op_type == "Concat"
        return Layout.APPEND if grows else Layout.SCATTER

    @property
    def name(self) -> str:
        """The input's name, else the output's: what messages and options call this state."""
        value = self.input if self.input is not None else self.output
        return (value.name or "") if value is not None else ""

    @property
    def length(self) -> Dim | None:
        """The rows on the input's axis as its type tells them; None where unknown."""
        dims = dims_of(self.input) if self.input is not None else None
        return dims[self.axis] if dims is not None and self.axis is not None else None

    @property
    def keeps_rows(self) -> bool:
        """True where an axis holds rows of the tokens that ran before: neither a recurrence nor only read."""
        return self.traits.keeps_rows and not self.recurrent

    @property
    def gains_row_per_token(self) -> bool:
        """True where the host's cache gets one row longer for every token, so that it can leave rows out again."""
        return self.traits.gains_rows and self.axis is not None and not self.is_ring

    @property
    def in_place(self) -> bool:
        """True where every token has the row of its position, also where only the new rows leave the graph."""
        return self.inside is Layout.SCATTER

    @property
    def window(self) -> int | None:
        """The sliding window of a fused attention, in tokens; None where it has none."""
        size = self._integer("local_window_size")
        return size if size is not None and size > 0 else None

    @property
    def is_ring(self) -> bool:
        """True where a fused attention keeps a ring of its window's rows, or TensorScatter writes round the end."""
        mode = self.update.attributes.get("mode") if self._is_tensor_scatter and self.update is not None else None
        return self._integer("sliding_window_cache") == 1 or (mode is not None and mode.as_string() == "circular")

    @property
    def starts_at_zero(self) -> bool:
        """True where every run writes its rows from row 0 on: TensorScatter without ``write_indices``."""
        return self._is_tensor_scatter and self.positions is None

    @property
    def _is_tensor_scatter(self) -> bool:
        node = self.update
        return node is not None and node.op_type == "TensorScatter" and not node.domain

    @property
    def shares_buffer(self) -> bool:
        """True where a fused attention writes into the past it was given, which then has room for the whole context."""
        return self.inside is Layout.FUSED and self.update is not None and self.update.op_type in SHARES_BUFFER

    @property
    def takes_shared_buffer(self) -> bool:
        """True for an attention that writes into its past only where that is as long as the context, and else grows."""
        return self.update is not None and self.update.op_type == "GroupQueryAttention" and not self.is_ring

    @property
    def is_buffer(self) -> bool:
        """True for a fused cache of fixed length: a buffer that the new rows are written into."""
        return self.shares_buffer and not self.is_ring and isinstance(self.length, int)

    @property
    def is_written(self) -> bool:
        """True for a cache of one length that rows are written into, at positions or into a fused buffer."""
        return self.in_place or self.is_buffer

    @property
    def is_movable(self) -> bool:
        """True where nodes of the graph join past and new rows and all rows stay: such a layout turns into another."""
        return self.traits.keeps_every_row and self.traits.shows_axis and not self.is_ring

    @property
    def takes_padding(self) -> bool:
        """True where every row that comes in is carried on: with padding among the rows the state would go wrong."""
        return self.recurrent or (self.traits.changes and not self.traits.rewinds)

    @property
    def one_buffer(self) -> bool:
        """True where input and output may be the same memory: the new rows are the first thing that happens to it.

        Everything else must read what was written, or the past's shape only: then no order of operators reads an old
        row after a new one took its place.
        """
        if self.layout is not Layout.SCATTER or self.chain or self.update is None or self.input is None:
            return False
        if self.output is None or self.output is not self.carried:
            return False
        others = [use.node for use in self.input.uses() if use.node is not self.update]
        return all(of(node).sizes for node in others)

    def _integer(self, name: str) -> int | None:
        """An integer attribute of the operator that updates the state."""
        found = self.update.attributes.get(name) if self.update is not None else None
        return found.as_int() if found is not None and found.type is ir.AttributeType.INT else None
