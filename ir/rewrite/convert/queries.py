"""Query positions that the graph counted, ``past, past + 1 …``, become the position input, one row a sequence."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from ...core.operators import of
from ...shapes.infer.facts import IntTensor
from ...states.signatures import is_whole_range, strip_shape_ops
from .batching import Batching
from .batching_rules import BATCHED
from .batching_shared import BATCH_FIRST
from .context import ConversionContext
from .lengths import leaking
from .query_rows import is_query_slice, take_query_rows


def rewire_queries(context: ConversionContext, positions: ir.Value) -> None:
    """Feeds ``positions`` ``[B, S]`` to everything that counted queries from the past's length.

    Raises PassRefused where the past's length is used in any other way.
    """
    batching = Batching(context)
    for node in list(context.model.graph):
        if is_query_slice(context, node):
            take_query_rows(batching, node, positions)
            continue
        for index in range(len(node.inputs)):
            value = _counted(context, node, index)
            if value is not None and value not in batching.forms:
                batching.forms[value] = _form(context, value, positions)
        if node.outputs[0] not in batching.forms:
            _feed(batching, node)


def _feed(batching: Batching, node: ir.Node) -> None:
    """Handles one node of the sweep; nodes come in graph order. Raises PassRefused for one not understood."""
    if of(node).sizes:
        return  # lengths are settled already
    if batching.operands(node):
        rule = BATCHED.get(node.op_type) if not node.domain else None
        if rule is None:
            raise batching.unknown(node)
        batching.take(node, rule(batching, node))
    elif any(value in batching.batch_first for value in node.inputs):
        rule = BATCH_FIRST.get(node.op_type) if not node.domain else None
        if rule is None and not _aligned(batching, node):
            raise batching.unknown(node)
        batching.take(node, rule(batching, node) if rule is not None else None)
        batching.batch_first.update(value for value in node.outputs if batching.first_is_one(value))


def _aligned(batching: Batching, node: ir.Node) -> bool:
    """True for an ONNX operator whose result has no more axes than what has the batch: the first stays first."""
    shape = batching.context.facts.shape(node.outputs[0])
    ranks = [len(batching.shape(node, value)) for value in node.inputs if value in batching.batch_first]
    single = sum(value is not None for value in node.inputs) == 1 or node.op_type == "Gather"
    return not node.domain and (single or (shape is not None and len(shape) <= min(ranks)))


def _counted(context: ConversionContext, node: ir.Node, index: int) -> ir.Value | None:
    """The value that counts queries where operand ``index`` tells the past's length and is no plain length."""
    content = leaking(context, node.inputs[index])
    if content is None or all(context.facts.ints(value) is not None for value in node.outputs):
        return None
    value = _COUNTS.get(node.op_type, _single)(context, node, index) if not node.domain else None
    if value is None:
        raise context.refuse(
            f"the past's length enters {node.op_type}, which is not understood",
            node=node,
            found=", ".join(map(str, content.items)),
            wanted="query positions past + 0, 1, 2 …, or past + seq",
            hint="Such a graph cannot be rewired to positions.",
        )
    return value


def _range(context: ConversionContext, node: ir.Node, index: int) -> ir.Value | None:
    """``Range(past, past + seq)``."""
    start = context.facts.ints(node.inputs[0]) if node.inputs[0] is not None else None
    step = context.facts.ints(node.inputs[2]) if node.inputs[2] is not None else None
    ordered = start is not None and start.items == (context.past,) and step is not None and step.items == (1,)
    return node.outputs[0] if ordered and context.facts.shape(node.outputs[0]) == (context.sequence,) else None


def _sum(context: ConversionContext, node: ir.Node, index: int) -> ir.Value | None:
    """``0, 1, 2 … + past``."""
    content, other = leaking(context, node.inputs[index]), node.inputs[1 - index]
    if content is None or other is None or content.items != (context.past,):
        return None
    counted = is_whole_range(strip_shape_ops(other)[0]) and context.sequence in (context.facts.shape(other) or ())
    own, result = context.facts.shape(other), context.facts.shape(node.outputs[0])
    if counted and own == result and all(dim in (1, context.sequence) for dim in own or ()):
        return node.outputs[0]
    return _single(context, node, index)


def _single(context: ConversionContext, node: ir.Node, index: int) -> ir.Value | None:
    """The past's length, or so many rows before it, where a run has one token: that position, or so far before it."""
    content, value = leaking(context, node.inputs[index]), node.inputs[index]
    return value if content is not None and _offset(context, content) is not None and context.sequence == 1 else None


def _offset(context: ConversionContext, content: IntTensor) -> int | None:
    """How far one number lies behind the past's length (a window begins before it); None for anything else."""
    if len(content.items) != 1 or isinstance(content.items[0], bool):
        return None
    offset = content.items[0] - context.past
    return offset if isinstance(offset, int) else None


_COUNTS: dict[str, Callable[[ConversionContext, ir.Node, int], ir.Value | None]] = {"Range": _range, "Add": _sum}


def _form(context: ConversionContext, value: ir.Value, positions: ir.Value) -> ir.Value:
    """``positions`` as ``[B, *shape of value]``, in the element type that the counting had; at the head."""
    builder, shape = context.builder, context.facts.shape(value) or ()
    content = context.facts.ints(value)
    dtype = content.dtype if content is not None else _counting_type(context, value)
    form = builder.cast(positions, dtype, f"positions/{dtype.name.lower()}") if dtype != positions.dtype else positions
    if content is not None and (offset := _offset(context, content)):
        distance = builder.cast(
            builder.ints([offset], f"offset_{offset}"), dtype, f"offset_{offset}/{dtype.name.lower()}"
        )
        form = builder.op("Add", [form, distance], f"positions/offset_{offset}", dtype=dtype)
    if not shape:
        form = builder.op("Squeeze", [form, builder.ints([1], "tokens_axis")], "positions/flat", dtype=dtype)
    axis = next((i for i, dim in enumerate(shape) if dim == context.sequence), 0)
    form = builder.unsqueeze(form, [i + 1 for i in range(len(shape)) if i != axis], f"positions/rank_{len(shape) + 1}")
    builder.place_front()
    return form


def _counting_type(context: ConversionContext, value: ir.Value) -> ir.DataType:
    """The type of the length that the count starts from."""
    node = value.producer()
    contents = [leaking(context, operand) for operand in node.inputs] if node is not None else []
    return next((content.dtype for content in contents if content is not None), ir.DataType.INT64)
