"""scatter -> append: a cache of fixed size becomes one that grows, its rows in the order of their positions."""

from __future__ import annotations

import onnx_ir as ir

from ...core.scopes import remove_dead
from ...shapes.dtypes import dtype_of
from ...states import State
from ...states.positions import position_source
from ...states.signatures import Signatures, reads_in_order, strip_shape_ops
from ...states.trace import constant_ints
from ...symbolic.dims import Dim, substitute
from ...symbolic.symbols import dims_of
from .context import ConversionContext
from .lengths import rewire_lengths
from .outcome import Outcome, settle_types, unused
from .proof import prove, refuse_unmasked
from .rows import refuse_in_bodies, refuse_selections


def scatter_to_append(context: ConversionContext) -> Outcome:
    """Rewrites the states of ``context`` and the lengths; raises PassRefused where that would not be exact.

    Rows stand in the order of their positions as long as a run's positions are ``past, past + 1 …`` with no padding:
    that is recorded as an assumption.
    """
    refuse_in_bodies(context)
    signatures = Signatures(context.model)
    sources = {id(state): _refuse_form(context, state, signatures) for state in context.states}
    dead = [node for state in context.states for node in state.readers]
    _resize_inputs(context)
    reads = {state.name: _append(context, state) for state in context.states}
    rewire_lengths(context)
    context.builder.place_front()
    remove_dead([*dead, *unused(context.model.graph)])
    for source in {id(source): source for source in sources.values()}.values():
        refuse_unmasked(context, reads, source)
        refuse_selections(context, source)
    settle_types(context, prove(context))
    names = sorted({source.name or "" for source in sources.values()})
    return Outcome(states=len(context.states), consecutive=tuple(names))


def _refuse_form(context: ConversionContext, state: State, signatures: Signatures) -> ir.Value:
    """The position input of a state whose rows are written at positions as they are, and all read in order."""
    source = position_source(state.update, state.positions)
    assert state.update is not None
    if source is None or source.sequence_axis is None or _lines(state) is not None or state.new is None:
        raise context.refuse(
            f"the rows of {state.name!r} are not written at an input's positions, one line a sequence",
            node=state.update,
            found="cache lines chosen by batch index" if _lines(state) is not None else state.evidence,
            wanted="positions [batch, seq] from an input as they are",
        )
    for reader in state.readers:
        access = signatures.gather(reader)
        if access is None or not reads_in_order(access.positions) or _length_of(context, reader) != context.past:
            raise context.refuse(
                f"rows of {state.name!r} are not read whole and in order",
                node=reader,
                wanted=f"row numbers 0 … {context.past} - 1",
                hint="Compute-context lengths have no form with a growing cache.",
            )
    return source.input


def _lines(state: State) -> ir.Value | None:
    """What chooses the lines of the cache, where that is not the order of the batch."""
    return state.selector if state.selector is not None else state.reorder


def _length_of(context: ConversionContext, reader: ir.Node) -> Dim | None:
    """How many rows a reader gives."""
    shape = context.facts.shape(reader.outputs[0])
    return shape[-2] if shape is not None and len(shape) > 1 else None


def _resize_inputs(context: ConversionContext) -> None:
    """The caches' inputs get the new symbol; other inputs with a column a row get ``past + seq``."""
    caches = {id(state.input) for state in context.states}
    for value in context.model.graph.inputs:
        rows = context.rows if id(value) in caches else context.total
        dims = [substitute(dim, {str(context.past): rows}) if dim is not None else None for dim in dims_of(value) or ()]
        if value.shape is not None:
            value.shape = ir.Shape([dim if isinstance(dim, int) or dim is None else str(dim) for dim in dims])


def _append(context: ConversionContext, state: State) -> ir.Value:
    """Puts the Concat in the write's place; gives the grown cache."""
    update, carried = state.update, state.carried
    assert update is not None and carried is not None and state.new is not None and state.input is not None
    axis = state.axis_at_update if state.axis_at_update is not None else state.axis
    new = _unpadded(context, state.new)
    past = state.chain[-1].outputs[0] if state.chain else state.input
    dtype = dtype_of(past) or ir.DataType.FLOAT
    grown = context.builder.op("Concat", [past, new], f"{state.name}/appended", {"axis": axis}, dtype=dtype)
    grown.type = carried.type or grown.type
    context.builder.place_before(update)
    for reader in state.readers:
        reader.outputs[0].replace_all_uses_with(grown, replace_graph_outputs=False)
    if carried.is_graph_output():
        outputs = context.model.graph.outputs
        outputs[outputs.index(carried)] = grown
        grown.name, carried.name = carried.name, f"{carried.name}/written"
        grown.type, grown.shape = carried.type, carried.shape
        state.output = grown
    carried.replace_all_uses_with(grown, replace_graph_outputs=False)
    return grown


def _unpadded(context: ConversionContext, new: ir.Value) -> ir.Value:
    """``new`` of ``Where(padding, other, new)``: there is no padding here."""
    node = new.producer()
    if node is None or node.op_type != "Where" or node.domain or node.inputs[0] is None or node.inputs[2] is None:
        return new
    root, _ = strip_shape_ops(node.inputs[0])
    less = root.producer()
    is_padding = less is not None and less.op_type == "Less" and constant_ints(less.inputs[1]) == [0]
    positions = less.inputs[0] if is_padding and less is not None else None
    start = strip_shape_ops(positions)[0] if positions is not None else None
    return node.inputs[2] if start is not None and start is context.positions else new
