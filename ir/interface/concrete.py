"""Computes masks, positions and lengths of a graph in numbers, for small sizes; weights are not read.

What depends on a weight, or on a cache's content, is NaN of its shape; what an operator unknown here computes is
:class:`Unknown`. Operators follow onnx's reference implementation (onnx 1.23).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from ..core.constants import constant_of

Array = np.ndarray[Any, Any]
Feed = Callable[[ir.Value], Array]
MAX_SMALL = 1 << 12  # elements of a float constant that is looked into
MAX_TABLE = 1 << 22  # of one of integers or booleans: stored masks
MAX_ELEMENTS = 1 << 20  # of anything computed
MAX_DEPTH = 400


class Unknown(Exception):
    """Nothing tells this value in numbers."""


class Concrete:
    """One assignment of a graph's inputs; each value is computed when it is asked for, once."""

    def __init__(self, feed: Feed, given: Mapping[int, Array]) -> None:
        self._feed = feed
        self._known: dict[int, Array] = dict(given)

    def value(self, value: ir.Value | None, depth: int = 0) -> Array:
        """The numbers of ``value``. Raises Unknown."""
        if value is None or depth > MAX_DEPTH:
            raise Unknown
        if id(value) not in self._known:
            self._known[id(value)] = self._computed(value, depth)
        return self._known[id(value)]

    def put(self, value: ir.Value, array: Array) -> None:
        """Says what a value holds."""
        self._known[id(value)] = array

    def _computed(self, value: ir.Value, depth: int) -> Array:
        node = value.producer()
        if value.const_value is not None or (node is not None and node.op_type == "Constant"):
            return _constant(value)
        if node is None:
            return self._feed(value)
        rule = _RULES.get(node.op_type) if not node.domain else None
        if rule is None or (value.index() and rule is not _split):
            raise Unknown
        operands = [self.value(v, depth + 1) if v is not None else None for v in node.inputs]
        try:
            with np.errstate(all="ignore"):
                found = np.asarray(rule(node, cast("list[Array]", operands)))
        except (ValueError, IndexError, TypeError, ZeroDivisionError, OverflowError, MemoryError) as error:
            raise Unknown from error
        if found.size > MAX_ELEMENTS:
            raise Unknown
        return found if rule is not _split else _part(found, node, value.index() or 0, operands)


def opaque(shape: tuple[int, ...]) -> Array:
    """NaN of that shape, in no memory."""
    return np.broadcast_to(np.float32(np.nan), shape)


def _constant(value: ir.Value) -> Array:
    tensor = constant_of(value)
    if tensor is None:
        raise Unknown
    floats = tensor.dtype.is_floating_point()
    if floats and (tensor.size > MAX_SMALL or isinstance(tensor, ir.ExternalTensor)):
        return opaque(tuple(int(size) for size in tensor.shape.numpy()))
    if tensor.size > MAX_TABLE:
        raise Unknown
    return cast("Array", tensor.numpy())


def _int(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _ints(node: ir.Node, name: str, x: list[Array], at: int) -> tuple[int, ...] | None:
    if name in node.attributes:
        return tuple(node.attributes[name].as_ints())
    return tuple(int(i) for i in x[at].reshape(-1)) if len(x) > at and x[at] is not None else None  # pyright: ignore[reportUnnecessaryComparison]


def _slice(node: ir.Node, x: list[Array]) -> Array:
    starts, ends = (_ints(node, name, x, at) or () for name, at in (("starts", 1), ("ends", 2)))
    axes = _ints(node, "axes", x, 3) or tuple(range(len(starts)))
    steps = _ints(node, "steps", x, 4) or (1,) * len(starts)
    where = [slice(None)] * x[0].ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        lowest = end < -x[0].shape[axis] and step < 0
        where[axis] = slice(start, None if lowest else end, step)
    return x[0][tuple(where)]


def _reshape(node: ir.Node, x: list[Array]) -> Array:
    sizes = [int(size) for size in x[1]]
    if not _int(node, "allowzero", 0):
        sizes = [x[0].shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return x[0].reshape(sizes)


def _unsqueeze(node: ir.Node, x: list[Array]) -> Array:
    return np.expand_dims(x[0], _ints(node, "axes", x, 1) or ())


def _squeeze(node: ir.Node, x: list[Array]) -> Array:
    return np.squeeze(x[0], _ints(node, "axes", x, 1))


def _shape(node: ir.Node, x: list[Array]) -> Array:
    end = node.attributes["end"].as_int() if "end" in node.attributes else None
    return np.array(x[0].shape[_int(node, "start", 0) : end], np.int64)


def _cast(node: ir.Node, x: list[Array]) -> Array:
    dtype = ir.DataType(node.attributes["to"].as_int())
    if dtype.is_integer() and x[0].dtype.kind == "f" and np.isnan(x[0]).any():
        raise Unknown
    return x[0].astype(dtype.numpy())


def _divide(node: ir.Node, x: list[Array]) -> Array:
    if x[0].dtype.kind not in "iu":
        return x[0] / x[1]
    return (np.sign(x[0]) * np.sign(x[1]) * (np.abs(x[0]) // np.abs(x[1]))).astype(x[0].dtype)


def _matmul(node: ir.Node, x: list[Array]) -> Array:
    if x[0].size + x[1].size < MAX_SMALL and not np.isnan(x[0]).any() and not np.isnan(x[1]).any():
        return np.matmul(x[0], x[1])
    front = np.broadcast_shapes(x[0].shape[:-2], x[1].shape[:-2])
    return opaque((*front, x[0].shape[-2], x[1].shape[-1]))


def _filled(node: ir.Node, x: list[Array]) -> Array:
    fill = node.attributes["value"].as_tensor().numpy().reshape(-1)[0] if "value" in node.attributes else np.float32(0)
    return np.full([int(size) for size in x[0]], fill)


def _trilu(node: ir.Node, x: list[Array]) -> Array:
    k = int(x[1]) if len(x) > 1 else 0
    return np.triu(x[0], k) if _int(node, "upper", 1) else np.tril(x[0], k)


def _clip(node: ir.Node, x: list[Array]) -> Array:
    low, high = (x[1] if len(x) > 1 else None), (x[2] if len(x) > 2 else None)
    found = np.maximum(x[0], low) if low is not None else x[0]
    return np.minimum(found, high) if high is not None else found


def _reduce(call: Callable[..., Any]) -> Rule:
    def rule(node: ir.Node, x: list[Array]) -> Array:
        axes = _ints(node, "axes", x, 1)
        return cast("Array", call(x[0], axis=axes, keepdims=bool(_int(node, "keepdims", 1)))).astype(x[0].dtype)

    return rule


def _split(node: ir.Node, x: list[Array]) -> Array:
    return x[0]


def _part(whole: Array, node: ir.Node, index: int, operands: list[Array | None]) -> Array:
    """One of the results of a Split."""
    axis, sizes = _int(node, "axis", 0), operands[1] if len(operands) > 1 else None
    if axis >= whole.ndim:
        raise Unknown
    each = -(-whole.shape[axis] // len(node.outputs))
    bounds = np.cumsum(sizes)[:-1] if sizes is not None else np.arange(1, len(node.outputs)) * each
    return np.split(whole, bounds, axis=axis)[index]


def _opaque_alike(node: ir.Node, x: list[Array]) -> Array:
    """What is computed from hidden rows item by item or line by line: nothing but its shape is looked at."""
    if not np.isnan(x[0]).any():
        raise ValueError
    return opaque(x[0].shape)


def _argmax(node: ir.Node, x: list[Array]) -> Array:
    return np.argmax(x[0], axis=_int(node, "axis", 0), keepdims=bool(_int(node, "keepdims", 1)))


def _plain(call: Callable[..., Any]) -> Rule:
    return lambda node, x: call(*x)


def _folded(call: Callable[..., Any]) -> Rule:
    def rule(node: ir.Node, x: list[Array]) -> Array:
        found = x[0]
        for other in x[1:]:
            found = call(found, other)
        return found

    return rule


Rule = Callable[[ir.Node, list[Array]], Any]
_RULES: dict[str, Rule] = {
    "Shape": _shape,
    "Size": lambda node, x: np.array(x[0].size, np.int64),
    "Gather": lambda node, x: np.take(x[0], x[1], axis=_int(node, "axis", 0)),
    "Slice": _slice,
    "Concat": lambda node, x: np.concatenate(x, axis=_int(node, "axis", 0)),
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Transpose": lambda node, x: np.transpose(x[0], _ints(node, "perm", x, 9)),
    "Expand": lambda node, x: np.broadcast_to(x[0], np.broadcast_shapes(x[0].shape, tuple(int(i) for i in x[1]))),
    "Tile": lambda node, x: np.tile(x[0], [int(i) for i in x[1]]),
    "Range": lambda node, x: np.arange(x[0].item(), x[1].item(), x[2].item(), dtype=x[0].dtype),
    "Cast": _cast,
    "ConstantOfShape": _filled,
    "Identity": lambda node, x: x[0],
    "Add": _plain(np.add),
    "Sub": _plain(np.subtract),
    "Mul": _plain(np.multiply),
    "Div": _divide,
    "Mod": lambda node, x: np.fmod(x[0], x[1]) if _int(node, "fmod", 0) else np.mod(x[0], x[1]),
    "Pow": lambda node, x: np.power(x[0], x[1]).astype(x[0].dtype),
    "Max": _folded(np.maximum),
    "Min": _folded(np.minimum),
    "Clip": _clip,
    "Where": lambda node, x: np.where(*x),
    "And": _plain(np.logical_and),
    "Or": _plain(np.logical_or),
    "Xor": _plain(np.logical_xor),
    "Not": _plain(np.logical_not),
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "Equal": _plain(np.equal),
    "Trilu": _trilu,
    "CumSum": lambda node, x: np.cumsum(x[0], axis=int(x[1])).astype(x[0].dtype),
    "MatMul": _matmul,
    "Split": _split,
    **dict.fromkeys("Sigmoid Erf Gelu Relu Reciprocal Softplus HardSwish Swish Softmax".split(), _opaque_alike),
    **dict.fromkeys("LayerNormalization RMSNormalization SimplifiedLayerNormalization".split(), _opaque_alike),
    "ReduceSum": _reduce(np.sum),
    "ReduceMean": _reduce(np.mean),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ArgMax": _argmax,
    **{name: _plain(getattr(np, name.lower())) for name in ("Abs", "Sqrt", "Exp", "Log", "Sin", "Cos", "Tanh", "Ceil")},
    "Floor": _plain(np.floor),
    "Neg": _plain(np.negative),
    "Sign": _plain(np.sign),
    "IsNaN": _plain(np.isnan),
}
"""Operators between sizes, positions and a mask, with what they compute."""
