"""append -> scatter: a cache that grows becomes one of fixed size, written at positions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...core.operators import key_of
from ...core.operators.walks import CHAIN_MOVED, PAIRS
from ...core.scopes import remove_dead
from ...states import State
from ...states.entries import reordered_by
from ...symbolic.dims import Dim
from ...symbolic.symbols import dims_of
from ..builder import Builder, Source
from .context import ConversionContext, whole_masks
from .indices import Block
from .lengths import rewire_lengths
from .options import MaskInput
from .outcome import Outcome, rename_retained, settle_types, unused
from .proof import prove, refuse_unmasked
from .queries import rewire_queries
from .rows import refuse_choices, refuse_in_bodies, refuse_selections
from .writes import Rewriter, refuse_unfit


def append_to_scatter(context: ConversionContext) -> Outcome:
    """Rewrites the states of ``context``, masks and lengths; raises PassRefused where that would not be exact."""
    refuse_in_bodies(context)
    refuse_choices(context)
    for state in context.states:
        _refuse_form(context, state)
    blocks = {id(state): _block(context, state) for state in context.states}
    for state in context.states:
        refuse_unfit(context.options.ops, blocks[id(state)], context.where)
    positions = context.positions if context.positions is not None else _new_positions(context)
    blocks = {key: _anchored(block, positions) for key, block in blocks.items()}
    _resize_inputs(context)
    reads = _write_states(context, positions, blocks)
    rewire_lengths(context)
    rewire_queries(context, positions)
    context.builder.place_front()
    remove_dead(unused(context.model.graph))
    refuse_unmasked(context, reads, positions)
    refuse_selections(context, positions)
    facts = prove(context)
    settle_types(context, facts)
    added = context.positions is None
    notes = (f"input {positions.name!r} is new: the cache row of each token, -1 for padding",) if added else ()
    outcome = Outcome(states=len(context.states), notes=notes, cache_rows=(positions.name or "",))
    _drop_mask(context, outcome)
    outcome.renamed = rename_retained(context.model, context.states, context.options)
    return outcome


def _refuse_form(context: ConversionContext, state: State) -> None:
    """The past must be appended to as it is, one of its axes the batch, and be read nowhere else."""
    assert state.input is not None and state.update is not None
    moved = [node for node in state.chain if node.op_type not in CHAIN_MOVED and reordered_by(node) is None]
    if state.new is None or moved or context.batch not in (dims_of(state.input) or ()):
        raise context.refuse(
            f"state {state.name!r} is not appended to as a tensor of rows for each sequence",
            node=state.update,
            found=f"{state.input.shape}" + (f" through {moved[0].op_type}" if moved else ""),
            wanted=f"a Concat of the past and one tensor of new rows, with an axis {context.batch}",
            hint=_BEFORE_GRIDS if any(key_of(node) in PAIRS for node in moved) else "",
        )
    past = state.chain[-1].outputs[0] if state.chain else state.input
    if state.update.inputs[0] is not past:
        raise context.refuse(
            f"the new rows of state {state.name!r} stand before the old ones",
            node=state.update,
            wanted="Concat(past, new): the order in which positions count rows",
        )
    for value in (state.input, *(node.outputs[0] for node in state.chain)):
        for node, _ in value.uses():
            if node is not state.update and node not in state.chain and (node.op_type != "Shape" or node.domain):
                raise context.refuse(f"state {state.name!r} is read before new rows are added", node=node)


_BEFORE_GRIDS = "Convert before caches are put on grids: convert-states,quantize{file=FILE …}, with the same encodings."


def _order(state: State) -> list[int]:
    """The input's axes in the order in which the update takes them."""
    assert state.input is not None
    axes = list(range(len(state.input.shape or ())))
    for node in state.chain:
        if node.op_type == "Transpose":
            perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else reversed(range(len(axes)))
            axes = [axes[at] for at in perm]
    return axes


def _block(context: ConversionContext, state: State) -> Block:
    """The cache's dimensions as the update takes it; the rows' count is read from the first state, the same for all."""
    first, declared = context.states[0], dims_of(state.input) if state.input is not None else None
    assert state.input is not None and first.input is not None and state.axis is not None and first.axis is not None
    dims: list[Source] = []
    for axis in _order(state):
        dim = (declared or ())[axis]
        if axis == state.axis:
            dims.append(context.rows if isinstance(context.rows, int) else (first.input, first.axis))
        else:
            dims.append(dim if isinstance(dim, int) else (state.input, axis))
    batch = next((i for i, axis in enumerate(_order(state)) if (declared or ())[axis] == context.batch), 0)
    return Block(tuple(dims), _order(state).index(state.axis), batch)


def _anchored(block: Block, positions: ir.Value) -> Block:
    """The batch is counted by the positions."""
    dims = list(block.dims)
    if not isinstance(dims[block.batch], int):
        dims[block.batch] = (positions, 0)
    return Block(tuple(dims), block.axis, block.batch)


def _new_positions(context: ConversionContext) -> ir.Value:
    names = {value.name for value in context.model.graph.inputs}
    name = "position_ids" if "position_ids" not in names else "cache_positions"
    shape = ir.Shape([_spelled(context.batch), _spelled(context.sequence)])
    value = ir.Value(name=name, type=ir.TensorType(ir.DataType.INT64), shape=shape)
    inputs = context.model.graph.inputs
    inputs.insert(inputs.index(context.tokens) + 1, value)
    return value


def _spelled(dim: Dim) -> int | str:
    return dim if isinstance(dim, int) else str(dim)


def _resize_inputs(context: ConversionContext) -> None:
    """The caches' inputs get their fixed rows, masks a column a row."""
    for state in context.states:
        assert state.input is not None and state.input.shape is not None and state.axis is not None
        dims = list(state.input.shape)
        dims[state.axis] = _spelled(context.rows)  # pyright: ignore[reportCallIssue, reportArgumentType]
        state.input.shape = ir.Shape(dims)
    if context.mask is not None:
        context.mask.shape = ir.Shape([_spelled(context.batch), _spelled(context.rows)])
    for mask in whole_masks(context.model, context.roles):
        outer = list(mask.shape or ())[:-2]
        mask.shape = ir.Shape([*outer, _spelled(context.sequence), _spelled(context.rows)])
    if context.positions is not None:
        context.positions.shape = ir.Shape([_spelled(context.batch), _spelled(context.sequence)])


def _write_states(context: ConversionContext, positions: ir.Value, blocks: dict[int, Block]) -> dict[str, ir.Value]:
    """Puts the writes in the Concats' place; gives what attention reads of each state."""
    rewriter = Rewriter(context.model, positions, context.builder, context.options.ops)
    for block in blocks.values():
        rewriter.share(block)
    context.builder.place_front()
    reads: dict[str, ir.Value] = {}
    for state in context.states:
        update, new = state.update, state.new
        assert update is not None and new is not None and state.input is not None and state.carried is not None
        past = next(v for v in update.inputs if v is not None and v is not new)
        written, read = rewriter.write(past, new, blocks[id(state)], state.name)
        context.builder.place_before(update)
        shape = context.facts.shape(state.carried)
        if shape is not None:
            context.facts.shapes[written] = context.facts.shapes[read] = shape  # as before, for the proof
        _replace(state, written, read)
        reads[state.name] = read
    return reads


def _replace(state: State, written: ir.Value, read: ir.Value) -> None:
    """``written`` takes the output's name and place, ``read`` what consumes the cache."""
    old, update = state.carried, state.update
    assert old is not None and update is not None and update.graph is not None
    graph = update.graph
    for value in {id(written): written, id(read): read}.values():
        value.type = ir.TensorType(dtype) if (dtype := old.dtype) is not None else value.type
    if old.is_graph_output():
        outputs = graph.outputs  # pyright: ignore[reportAttributeAccessIssue]  # states of the main graph only
        outputs[outputs.index(old)] = written
        written.name, old.name = old.name, f"{old.name}/appended"
        written.type, written.shape = old.type, old.shape
        state.output = written
    old.replace_all_uses_with(read, replace_graph_outputs=False)
    graph.remove(update, safe=True)


def _drop_mask(context: ConversionContext, outcome: Outcome) -> None:
    """``mask=positions``: the two-dimensional mask goes, every row a query's position allows is seen."""
    mask = context.mask
    if mask is None or context.options.mask is not MaskInput.POSITIONS:
        return
    assert mask.dtype is not None
    first = context.states[0]
    assert first.input is not None and first.axis is not None
    rows: Source = context.rows if isinstance(context.rows, int) else (first.input, first.axis)
    batch: Source = context.batch if isinstance(context.batch, int) else (context.tokens, 0)
    one = ir.Tensor(np.ones([1], dtype=mask.dtype.numpy()), name="one")
    builder = Builder(context.model.graph, context.options.owner)
    shape = builder.dims([batch, rows], "mask/shape")
    ones = builder.op("ConstantOfShape", [shape], "mask", {"value": one}, dtype=mask.dtype)
    mask.replace_all_uses_with(ones, replace_graph_outputs=False)
    builder.place_front()
    context.model.graph.inputs.remove(mask)
    outcome.removed.append(mask.name or "")
