"""Range wants scalars: operands of one element and one dimension, which some exporters give it, are squeezed."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from ..core.constants import constant_of
from ..core.scopes import scopes
from .builder import Builder

MAX_STEPS = 32  # of following an operand back


def squeeze_ranges(model: ir.Model, owner: str) -> int:
    """Puts a Squeeze before each operand of a Range, in any scope, that is no scalar for certain; returns how many.

    A runtime accepts such operands only while it does not know their shapes: with every dimension fixed it does, and
    refuses the graph. Squeeze without axes leaves a scalar as it is.
    """
    count = 0
    for scope in list(scopes(model)):
        known: dict[ir.Value, ir.Value] = {}
        builder = Builder(scope, owner)
        for node in [node for node in scope if node.op_type == "Range" and node.domain in ("", "ai.onnx")]:
            for port, value in enumerate(node.inputs):
                if value is None or is_scalar(value):
                    continue
                if value not in known:
                    known[value] = _squeezed(node, value, builder)
                    count += 1
                node.replace_input_with(port, known[value])
    return count


def is_scalar(value: ir.Value, steps: int = MAX_STEPS) -> bool:
    """True where the rank is 0 for certain: declared, of a constant, or by what computes it."""
    constant = constant_of(value)
    if constant is not None:
        return len(constant.shape) == 0
    if value.shape is not None:
        return len(value.shape) == 0
    node = value.producer()
    rule = _SCALARS.get(node.op_type) if node is not None and not node.domain else None
    return node is not None and rule is not None and steps > 0 and rule(node, steps - 1)


def _operands(node: ir.Node) -> list[ir.Value]:
    return [operand for operand in node.inputs if operand is not None]


def _all_operands(node: ir.Node, steps: int) -> bool:
    return all(is_scalar(operand, steps) for operand in _operands(node))


def _element(node: ir.Node, steps: int) -> bool:
    """One element of a shape: a Gather of it at a scalar."""
    source, index = _operands(node)
    maker = source.producer()
    return maker is not None and maker.op_type == "Shape" and is_scalar(index, steps)


_SCALARS: dict[str, Callable[[ir.Node, int], bool]] = {
    "Size": lambda node, steps: True,
    "Squeeze": lambda node, steps: len(node.inputs) == 1 and "axes" not in node.attributes,
    "Gather": _element,
    **dict.fromkeys(("Cast", "Identity", "Neg", "Abs", "Floor", "Ceil"), _all_operands),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Min", "Max", "Mod"), _all_operands),
}


def _squeezed(node: ir.Node, value: ir.Value, builder: Builder) -> ir.Value:
    """``value`` as a scalar, just before ``node``, named after the pass and the value: a Constant, or a Squeeze."""
    name, tensor = f"{value.name}_scalar", constant_of(value)
    if tensor is not None and tensor.size == 1:
        scalar = ir.Tensor(tensor.numpy().reshape(()), name=f"{builder.owner}/{name}")
        made = builder.op("Constant", [], name, {"value": scalar}, (), value.dtype)
    else:
        made = builder.op("Squeeze", [value], name, None, (), value.dtype)
    builder.place_before(node)
    return made
