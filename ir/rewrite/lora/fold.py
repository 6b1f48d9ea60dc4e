"""Low-rank adapters are added to the weights of products: each weight is read, summed and written once, by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...core.constants import constant_of
from ...core.errors import PassRefused
from ...core.operators import key_of, keys, names
from ..layer.projections import Projection

Delta = Callable[[], np.ndarray]
"""Gives DOUBLE ``[width, columns]``: what is added to a projection's weight."""
MAX_PATH = 4  # layouts and casts between a constant and its product
FOLDED = keys(lambda row: row.product and row.product.rows == 0 and not (row.product.packed or row.product.integers))
TURNS = names(lambda row: row.keeps_all and not (row.repeats or row.reshapes or row.ranks))
FLOATS = frozenset((ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE))


def fold(parts: Sequence[tuple[Projection, Delta]], where: str) -> Callable[[], None]:
    """Plans the sum of one product's weight and of what its parts get; the result makes it.

    Raises PassRefused, with nothing changed, for a quantized weight and for one that others read too.
    """
    weight = _weight_of(parts[0][0], where)
    scale, whole = _number(weight.node, "alpha"), (parts[0][0].width, parts[0][0].whole)

    def total() -> ir.TensorProtocol:
        stored, found = weight.tensor.numpy(), np.zeros(whole)
        for projection, delta in parts:
            found[:, projection.low : projection.high] += delta() / scale
        wide = stored.astype(np.float64) + (found.T if weight.turned else found)  # rounded once, at the end
        return ir.Tensor(wide.astype(stored.dtype), dtype=weight.tensor.dtype, name=weight.tensor.name)

    return lambda: weight.put(total)


@dataclass(eq=False)
class _Weight:
    """The constant that a product's weight is made of, and whether it is stored as ``[columns, width]``."""

    node: ir.Node
    value: ir.Value
    tensor: ir.TensorProtocol
    turned: bool

    def put(self, total: Callable[[], ir.TensorProtocol]) -> None:
        """``total`` takes its place; it is evaluated where it is written, one tensor in memory at a time."""
        shape, dtype = ir.Shape(self.tensor.shape.numpy()), self.tensor.dtype
        lazy = ir.LazyTensor(total, dtype=dtype, shape=shape, name=self.value.name)
        if self.value.is_initializer():
            self.value.const_value = lazy
            return
        graph = self.node.graph
        assert graph is not None, "a product stands in a graph"
        lazy.name = f"{self.value.name}/folded"
        fresh = ir.Value(name=lazy.name, shape=shape, type=ir.TensorType(dtype), const_value=lazy)
        graph.register_initializer(fresh)
        for user, index in list(self.value.uses()):
            user.replace_input_with(index, fresh)


def _weight_of(projection: Projection, where: str) -> _Weight:
    """What is behind layouts and casts of the weight, and read by nothing else."""
    node, operand = projection.node, projection.node.inputs[projection.weight]
    turned = bool(_number(node, "transB", 0.0))
    value, path = operand, list[ir.Node]()
    while value is not None and constant_of(value) is None and len(path) < MAX_PATH:
        maker = value.producer()
        if maker is None or maker.op_type not in TURNS:
            break
        path.append(maker)
        turned ^= maker.op_type == "Transpose"
        value = maker.inputs[0]
    tensor = constant_of(value)
    if operand is None or value is None or tensor is None or not _takes_sums(node, tensor):
        raise PassRefused(
            "the weight is quantized, or of a shape that nothing can be added to exactly", where=where,
            found=f"{node.op_type} {node.name!r}, weight {operand.name if operand is not None else ''!r}",
            hint="Use mode=inputs or mode=slots: the adapter then stands beside the product.",
        )  # fmt: skip
    readers = [use.node for item in (operand, value) for use in item.uses()]
    shared = [str(reader.name) for reader in readers if reader not in (node, *path)]
    if shared or value.is_graph_input() or value.is_graph_output():
        raise PassRefused(
            "the weight is shared", where=where,
            found=f"{value.name!r} is read by {', '.join(shared[:3]) or 'the outside'} too",
            hint="Use mode=inputs or mode=slots, which leave weights as they are.",
        )  # fmt: skip
    return _Weight(node, value, tensor, turned)


def _takes_sums(node: ir.Node, tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype in FLOATS and len(tensor.shape) == 2 and key_of(node) in FOLDED


def _number(node: ir.Node, name: str, default: float = 1.0) -> float:
    found = node.attributes.get(name)
    if found is None:
        return default
    return float(found.as_int()) if found.type is ir.AttributeType.INT else found.as_float()
