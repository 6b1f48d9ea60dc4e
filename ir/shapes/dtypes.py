"""Element types of values without a declared one, from what produces them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

MAX_STEPS = 64
FIXED = {
    **dict.fromkeys(
        ("And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor"),
        ir.DataType.BOOL,
    ),
    **dict.fromkeys(("ArgMax", "ArgMin", "NonZero", "Shape", "Size"), ir.DataType.INT64),
}
# operations whose output has the type of their first input
LIKE_FIRST = frozenset(
    (
        *("Abs", "Add", "Ceil", "Clip", "Concat", "Cos", "CumSum", "Div", "Einsum", "Erf", "Exp", "Expand", "Flatten"),
        *("Floor", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "Identity", "LayerNormalization", "Log"),
        *("MatMul", "Max", "Min", "Mod", "Mul", "Neg", "Pad", "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMean"),
        *(
            "ReduceMin",
            "ReduceProd",
            "ReduceSum",
            "Relu",
            "Reshape",
            "Round",
            "ScatterElements",
            "ScatterND",
            "Sigmoid",
        ),
        *(
            "Sin",
            "Slice",
            "Softmax",
            "Split",
            "Sqrt",
            "Squeeze",
            "Sub",
            "Tanh",
            "Tile",
            "Transpose",
            "Trilu",
            "Unsqueeze",
        ),
    )
)


def dtype_of(value: ir.Value) -> ir.DataType | None:
    """The element type: declared, of the constant, or followed back through the producers; None where unknown."""
    for _ in range(MAX_STEPS):
        found = value.dtype if value.const_value is None else value.const_value.dtype
        node = value.producer()
        if found is not None or node is None or node.domain:
            return found
        if node.op_type in FIXED:
            return FIXED[node.op_type]
        place = 0 if node.op_type in LIKE_FIRST else 1 if node.op_type == "Where" else -1
        source = node.inputs[place] if 0 <= place < len(node.inputs) else None
        if source is None:
            return _stated(node)
        value = source
    return None


def _stated(node: ir.Node) -> ir.DataType | None:
    """The type that an attribute states."""
    attributes = node.attributes.data
    tensor, to = attributes.get("value"), attributes.get("to")
    if node.op_type == "Cast" and to is not None and to.value is not None:
        return ir.DataType(to.value)
    if node.op_type not in ("Constant", "ConstantOfShape"):
        return None
    if tensor is not None and tensor.value is not None:
        return tensor.value.dtype
    return ir.DataType.FLOAT if node.op_type == "ConstantOfShape" else None


def dtypes_of(nodes: Iterable[ir.Node]) -> dict[ir.Value, ir.DataType]:
    """The element types of all values that ``nodes`` (in topological order) compute, as far as the tables tell."""
    known: dict[ir.Value, ir.DataType] = {}
    for node in nodes:
        place = 0 if node.op_type in LIKE_FIRST else 1 if node.op_type == "Where" else -1
        source = node.inputs[place] if 0 <= place < len(node.inputs) else None
        for index, value in enumerate(node.outputs):
            found = value.dtype
            if found is None and not node.domain and (index == 0 or node.op_type == "Split"):
                found = FIXED.get(node.op_type) or (_of(source, known) if source is not None else _stated(node))
            if found is not None:
                known[value] = found
    return known


def _of(value: ir.Value, known: Mapping[ir.Value, ir.DataType]) -> ir.DataType | None:
    return value.const_value.dtype if value.const_value is not None else known.get(value, value.dtype)
