"""Slices take the queries' own rows of what is as long as the keys: ``x[past : past + seq]``, ``x[-seq:]``."""

from __future__ import annotations

import onnx_ir as ir

from ...states.trace import constant_ints
from ...symbolic.dims import Dim
from .batching import Batching
from .context import ConversionContext
from .rows import FAR


def is_query_slice(context: ConversionContext, node: ir.Node) -> bool:
    """True for a Slice on one axis from row ``past`` on, or of the last ``seq`` rows of ``past + seq``."""
    if node.op_type != "Slice" or node.domain or len(node.inputs) < 3 or _axis(context, node) is None:
        return False
    axis, source = _axis(context, node), node.inputs[0]
    before, after = (context.facts.shape(v) if v is not None else None for v in (source, node.outputs[0]))
    starts = context.facts.ints(node.inputs[1]) if node.inputs[1] is not None else None
    ends = context.facts.ints(node.inputs[2]) if node.inputs[2] is not None else None
    if before is None or after is None or starts is None or axis is None:
        return False
    total: Dim = context.past + context.sequence
    end = ends.items[0] if ends is not None else None
    to_end = before[axis] == total and isinstance(end, int) and end >= FAR
    counted = after[axis] == context.sequence or end == total or to_end
    last = before[axis] == total and starts.items == (-1 * context.sequence,)
    return counted and (last or starts.items == (context.past,))


def take_query_rows(batching: Batching, node: ir.Node, positions: ir.Value) -> None:
    """Gathers the rows at ``positions`` instead, one line a sequence; raises PassRefused where batch is in the way."""
    context, builder, source = batching.context, batching.context.builder, node.inputs[0]
    axis, shape = _axis(context, node), batching.shape(node, source)
    assert source is not None and axis is not None
    name = f"{node.name or node.op_type}/rows"
    positions = builder.cast(positions, ir.DataType.INT64, f"{name}/positions")
    if source in batching.forms or source in batching.batch_first:
        raise batching.unknown(node)
    if context.batch not in shape:
        rows = builder.op("Gather", [source, positions], name, {"axis": axis})
        rest = [at for at in range(len(shape) + 1) if at != axis]
        form = builder.op("Transpose", [rows], f"{name}/batch_first", {"perm": [axis, *rest]})
        rows.type = form.type = source.type
        batching.take(node, form)
        return
    if shape[0] != context.batch or axis != 1:
        raise batching.unknown(node)
    index = builder.op("Unsqueeze", [positions, builder.ints([-1], "last_axis")], f"{name}/index")
    rows = builder.op("GatherND", [source, index], name, {"batch_dims": 1})
    rows.type = source.type
    builder.place_after(node)
    node.outputs[0].replace_all_uses_with(rows)


def _axis(context: ConversionContext, node: ir.Node) -> int | None:
    """The one axis that the Slice works on, counted from the front."""
    axes = constant_ints(node.inputs[3]) if len(node.inputs) > 3 else [0]
    steps = constant_ints(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else [1]
    shape = context.facts.shape(node.inputs[0]) if node.inputs[0] is not None else None
    if axes is None or len(axes) != 1 or steps != [1] or shape is None:
        return None
    return axes[0] % len(shape)
