"""Some operations give back one of their inputs: each rule names the value that replaces the output, or None."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from ...core.operators import names
from ...shapes.dtypes import dtype_of
from ...shapes.infer.context import OpKey
from ...symbolic.dims import Expr
from .scope import Round
from .uniform import uniform

Inputs = list[ir.Value | None]
Identity = Callable[[Round, ir.Node, Inputs], ir.Value | None]

MAX_CHAIN = 8
RESHAPES = names(lambda row: row.reshapes)

_F, _I, _U = ir.DataType, ("INT8", "INT16", "INT32", "INT64"), ("UINT8", "UINT16", "UINT32", "UINT64")
# element types that hold every value of another one exactly
WIDER: dict[ir.DataType, frozenset[ir.DataType]] = {
    _F.BOOL: frozenset(_F[name] for name in (*_I, *_U, "FLOAT16", "BFLOAT16", "FLOAT", "DOUBLE")),
    _F.BFLOAT16: frozenset({_F.FLOAT, _F.DOUBLE}),
    _F.FLOAT16: frozenset({_F.FLOAT, _F.DOUBLE}),
    _F.FLOAT: frozenset({_F.DOUBLE}),
    _F.INT32: frozenset({_F.INT64, _F.DOUBLE}),
    _F.INT16: frozenset({_F.INT32, _F.INT64, _F.FLOAT, _F.DOUBLE}),
    _F.INT8: frozenset({_F.INT16, _F.INT32, _F.INT64, _F.FLOAT, _F.DOUBLE}),
    _F.UINT8: frozenset({_F.INT16, _F.INT32, _F.INT64, _F.FLOAT, _F.DOUBLE}),
}


def same_shape(state: Round, value: ir.Value, node: ir.Node) -> bool:
    """True where ``value`` has, for certain, the shape of the node's first output."""
    shape = state.facts.shapes.get(value)
    return shape is not None and shape == state.facts.shapes.get(node.outputs[0])


def identity(state: Round, node: ir.Node, inputs: Inputs) -> ir.Value | None:
    """``Identity(x)`` is x; of a graph input or initializer that is a graph output, the node stays."""
    return inputs[0]


def cast(state: Round, node: ir.Node, inputs: Inputs) -> ir.Value | None:
    """``Cast`` to the own type; ``Cast(Cast(x))`` back over a wider type; another such pair reads x directly."""
    value = inputs[0]
    if value is None:
        return None
    to = ir.DataType(state.ctx.int_attr(node, "to", 0))
    middle = dtype_of(value)
    if middle is to:
        return value
    inner = value.producer()
    if inner is None or inner.op_type != "Cast" or inner.domain or middle is None:
        return None
    source = state.read(inner)[0]
    first = None if source is None else dtype_of(source)
    if source is None or first is None or middle not in WIDER.get(first, ()):
        return None
    if first is to:
        return source
    state.inputs[node] = [source]
    return None


def layout(state: Round, node: ir.Node, inputs: Inputs) -> ir.Value | None:
    """A chain of ``Reshape``, ``Squeeze``, ``Unsqueeze``, ``Flatten`` that returns to an earlier shape."""
    value = inputs[0]
    for _ in range(MAX_CHAIN):
        if value is None:
            return None
        if same_shape(state, value, node):
            return value
        inner = value.producer()
        if inner is None or inner.domain or inner.op_type not in RESHAPES:
            return None
        value = state.read(inner)[0]
    return None


def expand(state: Round, node: ir.Node, inputs: Inputs) -> ir.Value | None:
    """``Expand`` to the own shape."""
    return inputs[0] if inputs[0] is not None and same_shape(state, inputs[0], node) else None


def slice_all(state: Round, node: ir.Node, inputs: Inputs) -> ir.Value | None:
    """``Slice`` that takes all of every axis, in order."""
    steps = inputs[4] if len(inputs) > 4 else None
    content = state.content(steps)
    if steps is not None and (content is None or any(step != 1 for step in content.items)):
        return None
    return expand(state, node, inputs)


def transpose(state: Round, node: ir.Node, inputs: Inputs) -> ir.Value | None:
    """``Transpose`` that moves nothing; two in a row become one, or none."""
    value = inputs[0]
    perm = perm_of(state, node)
    if value is None or perm is None:
        return None
    if perm == tuple(range(len(perm))):
        return value
    inner = value.producer()
    if (
        inner is None
        or inner.op_type != "Transpose"
        or inner.domain
        or len(value.uses()) > 1
        or value.is_graph_output()
    ):
        return None
    first = perm_of(state, inner)
    source = state.read(inner)[0]
    if first is None or source is None or len(first) != len(perm):
        return None
    both = tuple(first[place] for place in perm)
    if both == tuple(range(len(both))):
        return source
    state.inputs[node] = [source]
    state.perms[node] = both
    return None


def perm_of(state: Round, node: ir.Node) -> tuple[int, ...] | None:
    """The permutation of a ``Transpose``, the default spelled out; None where the rank is unknown."""
    if node in state.perms:
        return state.perms[node]
    perm = state.ctx.ints_attr(node, "perm")
    shape = state.facts.shapes.get(node.outputs[0])
    return perm if perm is not None or shape is None else tuple(reversed(range(len(shape))))


def concat(state: Round, node: ir.Node, inputs: Inputs) -> ir.Value | None:
    """``Concat`` of one; operands of length zero are dropped."""
    axis = state.ctx.int_attr(node, "axis", 0)
    kept = [value for value in inputs if value is not None and not _empty(state, value, axis)] or inputs[:1]
    if len(kept) == 1:
        return kept[0]
    if len(kept) < len(inputs):
        state.inputs[node] = list(kept)
    return None


def _empty(state: Round, value: ir.Value, axis: int) -> bool:
    shape = state.facts.shapes.get(value)
    return shape is not None and -len(shape) <= axis < len(shape) and shape[axis] == 0


def where(state: Round, node: ir.Node, inputs: Inputs) -> ir.Value | None:
    """``Where`` with a condition that is all true or all false, the branch having the full shape."""
    flag = None if inputs[0] is None else uniform(state, inputs[0])
    if flag is None:
        return None
    branch = inputs[1] if flag else inputs[2]
    return branch if branch is not None and same_shape(state, branch, node) else None


def neutral(element: object, *, right_only: bool, floats: bool) -> Identity:
    """``x op element`` is x; on both sides where the operation commutes."""

    def rule(state: Round, node: ir.Node, inputs: Inputs) -> ir.Value | None:
        if len(inputs) != 2 or inputs[0] is None or inputs[1] is None:
            return None
        a, b = inputs[0], inputs[1]
        for value, other in [(a, b)] if right_only else [(a, b), (b, a)]:
            if same_shape(state, value, node) and _is(uniform(state, other), element):
                return value if floats or not _floating(value, other) else None
        return None

    return rule


def _is(found: object, element: object) -> bool:
    return (
        found is not None
        and not isinstance(found, Expr)
        and found == element
        and isinstance(found, bool) == isinstance(element, bool)
    )


def _floating(value: ir.Value, other: ir.Value) -> bool:
    dtype = dtype_of(value) or dtype_of(other)
    return dtype is None or not dtype.is_integer()


def dropout(state: Round, node: ir.Node, inputs: Inputs) -> ir.Value | None:
    """``Dropout`` outside training, its mask unused."""
    training = inputs[2] if len(inputs) > 2 else None
    if training is not None and uniform(state, training) is not False:
        return None
    masked = len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output())
    return None if masked else inputs[0]


IDENTITIES: dict[OpKey, Identity] = {
    ("", "Add"): neutral(0, right_only=False, floats=False),  # -0.0 + 0.0 is 0.0
    ("", "And"): neutral(True, right_only=False, floats=True),
    ("", "Cast"): cast,
    ("", "Concat"): concat,
    ("", "Div"): neutral(1, right_only=True, floats=True),
    ("", "Dropout"): dropout,
    ("", "Expand"): expand,
    ("", "Flatten"): layout,
    ("", "Identity"): identity,
    ("", "Mul"): neutral(1, right_only=False, floats=True),
    ("", "Or"): neutral(False, right_only=False, floats=True),
    ("", "Reshape"): layout,
    ("", "Slice"): slice_all,
    ("", "Squeeze"): layout,
    ("", "Sub"): neutral(0, right_only=True, floats=False),
    ("", "Transpose"): transpose,
    ("", "Unsqueeze"): layout,
    ("", "Where"): where,
}
