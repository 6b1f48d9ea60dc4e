"""INT32_MAX as "no index", which one vendor's device knows: portable graphs read row 0 there and write the last row."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..core.constants import constant_of
from ..core.errors import PassRefused
from ..core.operators import ALL, OPERATORS, where
from ..core.scopes import scopes
from .builder import Builder

NO_INDEX = np.iinfo(np.int32).max
_GATHERS = {("Gather", 1), *((name, row.slots) for (_, name), row in where(lambda row: row.reads).items())}
_SCATTERS = {(name, row.slots) for (_, name), row in where(lambda row: row.writes).items()}
_MOVES = {name: row.hands_on for (domain, name), row in OPERATORS.items() if row.hands_on and not domain}
"""The operands whose indices stay indices; Mod and Div make another index of one, which lies within the rows."""
REPLACEMENT = {"gather": 0, "scatter": -1}


def uses_no_index(model: ir.Model) -> bool:
    """True where a constant INT32_MAX is used in the graph or a function of it."""
    return bool(_uses(model))


def make_indices_portable(model: ir.Model, owner: str) -> dict[str, int]:
    """Replaces INT32_MAX in place wherever it becomes an index; how many of each kind.

    An index 0 reads a row that the graph masks anyway; an index -1 writes the last row, which nothing reads as long as
    the cache is longer than the longest row of positions. Raises PassRefused where one use reaches both a gather and a
    scatter.
    """
    counts, builder = {"gather": 0, "scatter": 0}, Builder(model.graph, owner)
    for source, node, port in list(_uses(model)):
        reached = _reached(model, node, port)
        if len(reached) > 1:
            raise PassRefused(
                "INT32_MAX reaches a gather and a scatter at once; onnxruntime can run neither",
                where=node.name or node.op_type,
                hint="Give the reads and the writes a constant each.",
            )
        for kind in reached:
            _replace(builder, source, node, port, REPLACEMENT[kind])
            counts[kind] += 1
    return counts


def _uses(model: ir.Model) -> list[tuple[ir.Value, ir.Node, int]]:
    """Every use of a constant that is INT32_MAX throughout."""
    found: list[tuple[ir.Value, ir.Node, int]] = []
    for scope in scopes(model):
        constants = [node.outputs[0] for node in scope if _is_no_index(node)]
        if isinstance(scope, ir.Graph):
            constants += [value for value in scope.initializers.values() if _all_no_index(value.const_value)]
        found.extend((value, use.node, use.idx) for value in constants for use in value.uses())
    return found


def _is_no_index(node: ir.Node) -> bool:
    if node.op_type == "ConstantOfShape":
        attribute = node.attributes.get("value")
        return attribute is not None and _all_no_index(attribute.as_tensor())
    if node.op_type != "Constant" or node.domain:
        return False
    return _all_no_index(constant_of(node.outputs[0]))


def _all_no_index(tensor: ir.TensorProtocol | None) -> bool:
    if tensor is None or tensor.dtype not in (ir.DataType.INT32, ir.DataType.INT64) or not 0 < tensor.size <= 256:
        return False
    return bool(np.all(tensor.numpy() == NO_INDEX))


def _reached(model: ir.Model, node: ir.Node, port: int) -> set[str]:
    """Where a number at this operand ends up as an index: {"gather"}, {"scatter"}, both, or nowhere."""
    reached: set[str] = set()
    seen: set[tuple[ir.Node, int]] = set()
    work = [(node, port)]
    while work:
        step = work.pop()
        if step in seen:
            continue
        seen.add(step)
        consumer, at = step
        key = (consumer.op_type, at)
        reached |= {"gather"} if key in _GATHERS else {"scatter"} if key in _SCATTERS else set()
        work.extend((use.node, use.idx) for value in _carried(model, consumer, at) for use in value.uses())
    return reached


def _carried(model: ir.Model, node: ir.Node, port: int) -> list[ir.Value]:
    """The values that hold the operand's numbers after this node, inside functions and out of them again."""
    function = model.functions.get(node.op_identifier())
    if function is not None:
        return [function.inputs[port]] if port < len(function.inputs) else []
    if node.op_type not in _MOVES or node.domain:
        return []
    ports = _MOVES[node.op_type]
    outputs = list(node.outputs) if ports == ALL or port in ports else []
    return outputs + [outer for value in outputs for outer in _outside(model, value)]


def _outside(model: ir.Model, value: ir.Value) -> list[ir.Value]:
    """For an output of a function: the outputs of the calls to it."""
    return [
        node.outputs[at]
        for function in model.functions.values()
        for at, output in enumerate(function.outputs)
        if output is value
        for scope in scopes(model)
        for node in scope
        if node.op_identifier() == function.identifier() and at < len(node.outputs)
    ]


def _replace(builder: Builder, source: ir.Value, node: ir.Node, port: int, number: int) -> None:
    """Gives this one use a constant of its own."""
    maker = source.producer()
    dtype = source.dtype or (source.const_value.dtype if source.const_value is not None else ir.DataType.INT64)
    shape: tuple[int, ...] = ()
    attribute = maker.attributes.get("value") if maker is not None else None
    if maker is not None and maker.op_type == "ConstantOfShape" and attribute is not None:
        inputs, op_type, dtype, shape = list(maker.inputs), "ConstantOfShape", attribute.as_tensor().dtype, (1,)
    else:
        tensor = constant_of(source)
        assert tensor is not None, "only constants are replaced"
        inputs, op_type, dtype, shape = [], "Constant", tensor.dtype, tuple(tensor.numpy().shape)
    value = ir.tensor(np.full(shape, number, dtype.numpy()))
    name = f"{builder.owner}/{node.name}/{port}"
    new = builder.op(op_type, inputs, name, {"value": value}, dtype=dtype, exact=True)
    builder.place_before(node)
    node.replace_input_with(port, new)
