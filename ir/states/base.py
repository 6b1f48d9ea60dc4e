"""What a state is: a tensor carried from one run to the next, and how the graph updates it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import onnx_ir as ir


class Layout(enum.Enum):
    """How the update of a state is expressed in the graph."""

    APPEND = "append"  # Concat(past, new)
    SCATTER = "scatter"  # written in place at positions
    FUSED = "fused"  # inside one attention or recurrence operator
    DELTA = "delta"  # only the new rows leave the graph
    WINDOW = "window"  # a ring, or the last rows of a growing cache
    RECURRENT = "recurrent"  # conv, SSM, linear attention
    FIXED = "fixed"  # only read, or passed through unchanged


class Pairing(enum.Enum):
    """Which directions of a state the graph has."""

    BOTH = "both"
    INPUT_ONLY = "input only"
    OUTPUT_ONLY = "output only"


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
        evidence: One sentence on how the state was recognized.
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
    evidence: str = ""
    extra: dict[str, object] = field(default_factory=dict[str, object])

    @property
    def inside(self) -> Layout:
        """The layout that the whole cache has inside the graph, also where only the new rows leave it."""
        if self.layout is not Layout.DELTA:
            return self.layout
        if "port" in self.extra:
            return Layout.FUSED
        grows = self.update is not None and self.update.op_type == "Concat"
        return Layout.APPEND if grows else Layout.SCATTER

    @property
    def name(self) -> str:
        """The input's name, else the output's: what messages and options call this state."""
        value = self.input if self.input is not None else self.output
        return (value.name or "") if value is not None else ""
