"""Takes a state out of its graph: the past becomes its initial value, the update becomes the new rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ...core.scopes import remove_dead
from ...states.base import Layout, State
from ...states.entries import reordered_by
from ...states.ports import CACHE_ATTRIBUTES
from ...states.positions import PositionSource, position_source
from ...states.ranges import context_inputs
from ...states.start import Start
from ...symbolic.dims import Dim, Expr
from ...symbolic.symbols import dims_of
from ..builder import Builder, Source

Anchor = tuple[ir.Value, int]
"""An input that stays, and one of its axes."""


@dataclass
class Unbinding:
    """What is known about the graph while its states are taken out.

    Attributes:
        builder: Where new nodes are emitted.
        anchors: For each symbol where an input that stays has it.
        batch: What counts the batch, for symbols that only states had.
        sequence: What counts the tokens of a run.
        sources: Where each scatter state's positions come from, by the state's id.
        starts: What states start from that do not start from zeros, by name.
        dead: Nodes that may have lost their last use.
        text: Whether the graph reads token ids, so that a cache of fixed length holds rows of no token at first.
    """

    builder: Builder
    anchors: dict[Dim, Anchor]
    batch: Anchor | None
    sequence: Anchor | None
    sources: dict[int, PositionSource | None] = field(default_factory=dict[int, "PositionSource | None"])
    starts: dict[str, Start] = field(default_factory=dict[str, Start])
    dead: list[ir.Node] = field(default_factory=list[ir.Node])
    text: bool = True

    def keeps_context(self, state: State) -> bool:
        """True for a left context of fixed length in a graph without tokens: it starts as zeros, as recurrences do."""
        return not self.text and state.layout is Layout.WINDOW and isinstance(state.length, int)

    def source(self, state: State) -> PositionSource | None:
        """Where the state's positions come from; remembered, as taking states out cuts the way."""
        if id(state) not in self.sources:
            self.sources[id(state)] = position_source(state.update, state.positions)
        return self.sources[id(state)]

    def tokens(self, state: State) -> Anchor | None:
        """What counts the rows that the state's update writes in one run."""
        source = self.source(state)
        if source is not None and source.sequence_axis is not None:
            return source.input, source.sequence_axis
        return self.sequence


def anchors_of(inputs: Iterable[ir.Value]) -> dict[Dim, Anchor]:
    """The first input and axis that each bare symbol of ``inputs`` names."""
    anchors: dict[Dim, Anchor] = {}
    for value in inputs:
        for axis, dim in enumerate(dims_of(value) or ()):
            if isinstance(dim, Expr) and dim.is_symbol:
                anchors.setdefault(dim, (value, axis))
    return anchors


def initial_dims(state: State, unbinding: Unbinding) -> list[Source | None]:
    """The shape of the state's initial value; None stands for a dimension that no remaining input tells.

    On the state's own axis: 0 where it grows, the run's own length where it is written in place, and for a
    convolution's state as many rows as it looks back.
    """
    assert state.input is not None
    source = unbinding.source(state)
    dims: list[Source | None] = []
    for axis, dim in enumerate(dims_of(state.input) or ()):
        if axis == state.axis and state.layout is not Layout.RECURRENT and not unbinding.keeps_context(state):
            dims.append(unbinding.tokens(state) if state.in_place else 0)
        elif axis == 0 and state.selector is not None and source is not None and source.batch_axis is not None:
            dims.append((source.input, source.batch_axis))
        elif isinstance(dim, int):
            dims.append(dim)
        elif axis == state.axis and state.conv_rows is not None:
            dims.append(state.conv_rows)
        else:
            known = unbinding.anchors.get(dim) if dim is not None else None
            dims.append(known or (unbinding.batch if axis == 0 else None))
    return dims


def take_out(state: State, unbinding: Unbinding) -> None:
    """Rewires the graph around ``state``; its input and output lose their uses but stay in the graph's lists."""
    assert state.input is not None
    _forget_lines(state, unbinding)
    if (
        state.update is not None and not state.stacked and not unbinding.keeps_context(state)
    ):  # else a function has let go of it, or parts take it
        _TAKE_OUT[Layout.FUSED if state.inside is Layout.FUSED else state.layout](state, unbinding)
    remove_dead(unbinding.dead)
    if state.input.is_initializer() and state.name in unbinding.starts:
        _start_otherwise(state, unbinding.starts[state.name])
        return
    for node, index in tuple(state.input.uses()):
        _feed_initial(state, node, index, unbinding)


def _start_otherwise(state: State, start: Start) -> None:
    """An input with an initializer starts from that, or from what was given in its place; the input goes, it stays."""
    assert state.input is not None and state.input.const_value is not None and state.input.dtype is not None
    held = state.input.const_value
    content = np.reshape(np.asarray(start.values), start.shape)
    spread = np.array(np.broadcast_to(content, held.shape.numpy()), state.input.dtype.numpy())
    if not np.array_equal(spread, held.numpy()):
        state.input.const_value = ir.Tensor(spread, name=held.name)


def _forget_lines(state: State, unbinding: Unbinding) -> None:
    """No old row is left that an input could choose lines of for a beam: what the past is sized by stays."""
    kept: list[ir.Node] = []
    for node in state.chain if state.reorder is not None else ():
        source = node.inputs[0] if reordered_by(node) is not None else None
        if source is None:
            kept.append(node)
            continue
        node.outputs[0].replace_all_uses_with(source)
        unbinding.dead.append(node)
    state.chain = tuple(kept) if state.reorder is not None else state.chain


def _new_rows_for_all(state: State, unbinding: Unbinding) -> None:
    """Append, window, delta, scatter: what was past and new together is the new rows."""
    assert state.update is not None and state.carried is not None
    for context in context_inputs(state):
        _shape_of_run(context, state, unbinding)
    new = _new_rows(state, unbinding)
    for reader in state.readers:  # each takes what it reads from, casts between write and read included
        assert reader.inputs[0] is not None
        reader.outputs[0].replace_all_uses_with(reader.inputs[0], replace_graph_outputs=False)
    state.carried.replace_all_uses_with(new, replace_graph_outputs=False)
    unbinding.dead.extend((*state.readers, state.update, *reversed(state.chain)))


def _clear_port(state: State, unbinding: Unbinding) -> None:
    """Fused: the past port is left empty. The present output stays, unconnected: trimmed, kernels change by an ulp."""
    port, node = state.port, state.update
    assert port is not None and node is not None
    node.replace_input_with(port.past, None)
    for name in CACHE_ATTRIBUTES.get((node.domain, node.op_type), ()):
        node.attributes.pop(name, None)
    unbinding.dead.extend(reversed(state.chain))


def _initial_value_only(state: State, unbinding: Unbinding) -> None:
    """Recurrent: the update stays and starts from zeros."""


_TAKE_OUT: dict[Layout, Callable[[State, Unbinding], None]] = {
    Layout.APPEND: _new_rows_for_all,
    Layout.WINDOW: _new_rows_for_all,
    Layout.DELTA: _new_rows_for_all,
    Layout.SCATTER: _new_rows_for_all,
    Layout.FUSED: _clear_port,
    Layout.RECURRENT: _initial_value_only,
}


def _new_rows(state: State, unbinding: Unbinding) -> ir.Value:
    """What the update adds: its other operand, or a Concat of the others where there are several."""
    if state.new is not None:
        return state.new
    assert state.update is not None
    past = state.chain[-1].outputs[0] if state.chain else state.input
    rest = [value for value in state.update.inputs if value is not past]
    builder, old = unbinding.builder.aside(), state.update.outputs[0]
    new = builder.op("Concat", rest, f"{state.update.name}/new", state.update.attributes, exact=True)
    new.name, new.type = f"{old.name}/new", old.type
    builder.place_after(state.update)
    return new


def _feed_initial(state: State, node: ir.Node, index: int, unbinding: Unbinding) -> None:
    """Gives one remaining consumer of the past the initial value, or its shape where only that is asked for."""
    dims = [d for d in initial_dims(state, unbinding) if d is not None]
    if node.op_type == "Shape" and not node.domain:
        _replace_shape(node, dims, unbinding, state.name)
    else:
        start = unbinding.starts.get(state.name)
        node.replace_input_with(index, _initial(state, dims, start, unbinding.builder))


def _shape_of_run(context: ir.Value, state: State, unbinding: Unbinding) -> None:
    """An input whose length alone tells how many rows to read (compute-context-length) reads the run's own rows."""
    tokens = unbinding.tokens(state)
    for node, _ in tuple(context.uses()):
        if node.op_type == "Shape" and not node.domain and tokens is not None:
            _replace_shape(node, [tokens], unbinding, context.name or "context")


def _replace_shape(node: ir.Node, dims: Sequence[Source], unbinding: Unbinding, name: str) -> None:
    start = node.attributes["start"].as_int() if "start" in node.attributes else None
    end = node.attributes["end"].as_int() if "end" in node.attributes else None
    node.outputs[0].replace_all_uses_with(unbinding.builder.dims(dims[start:end], f"{name}/shape"))
    unbinding.dead.append(node)


def _initial(state: State, dims: Sequence[Source], start: Start | None, builder: Builder) -> ir.Value:
    """The first value: one number (zero) in all of these sizes, or the content given, spread over open sizes."""
    assert state.input is not None and state.input.dtype is not None
    dtype, name = state.input.dtype, f"{state.name}/initial"
    filled = start is None or len(start.values) == 1
    content = np.asarray(start.values if start is not None else [0.0]).astype(dtype.numpy())
    if start is not None and not filled:
        given = builder.constant(ir.Tensor(content.reshape(start.shape)), name)
        if list(start.shape) == list(dims):
            return given
        return builder.op("Expand", [given, builder.dims(dims, f"{state.name}/shape")], name, dtype=dtype)
    if all(isinstance(d, int) for d in dims):
        sizes = [int(d) for d in dims if isinstance(d, int)]
        return builder.constant(ir.Tensor(np.full(sizes, content[0])), name)
    shape = builder.dims(dims, f"{state.name}/shape")
    fill = ir.Tensor(content, name=name)
    return builder.op("ConstantOfShape", [shape], name, {"value": fill}, dtype=dtype)
