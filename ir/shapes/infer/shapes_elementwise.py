"""An elementwise operation has its input's shape, or the broadcast of all inputs."""

from __future__ import annotations

import onnx_ir as ir

from .context import Context, OpKey, ShapeRule, Shapes
from .declared import tensor_shape


def same(ctx: Context, node: ir.Node) -> Shapes:
    """The first input's shape."""
    return (ctx.shape(node, 0),)


def same_and_scalars(ctx: Context, node: ir.Node) -> Shapes:
    """``DynamicQuantizeLinear``: the input's shape, one scale, one zero point."""
    return (ctx.shape(node, 0), (), ())


def same_twice(ctx: Context, node: ir.Node) -> Shapes:
    """The first input's shape for two outputs (a mask, an inverse)."""
    return (ctx.shape(node, 0),) * 2


def broadcast(ctx: Context, node: ir.Node) -> Shapes:
    """The multidirectional broadcast of all inputs."""
    shape = ctx.shape(node, 0)
    for index in range(1, len(node.inputs)):
        shape = ctx.broadcast(shape, ctx.shape(node, index))
    return (shape,)


def constant(ctx: Context, node: ir.Node) -> Shapes:
    """``Constant`` that is no small integer tensor."""
    tensor = ctx.attr(node, "value")
    if tensor is not None:
        return (tensor_shape(tensor),)
    for name in ("value_floats", "value_ints", "value_strings"):
        found = ctx.attr(node, name)
        if found is not None:
            return ((len(found),),)
    return ((),)


SAME = (
    *(
        "Abs",
        "Acos",
        "Acosh",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "Bernoulli",
        "BitwiseNot",
        "Cast",
        "CastLike",
        "Ceil",
        "Celu",
    ),
    *("Clip", "Cos", "Cosh", "CumProd", "CumSum", "DequantizeLinear", "Elu", "Erf", "Exp", "EyeLike", "Floor", "Gelu"),
    *(
        "GroupNormalization",
        "HardSigmoid",
        "HardSwish",
        "Hardmax",
        "Identity",
        "InstanceNormalization",
        "IsInf",
        "IsNaN",
    ),
    *("LRN", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization", "MeanVarianceNormalization", "Mish", "Neg", "Not"),
    *("QuantizeLinear", "RMSNormalization", "RandomNormalLike", "RandomUniformLike", "Reciprocal", "Relu"),
    *(
        "ReverseSequence",
        "Round",
        "Scatter",
        "ScatterElements",
        "ScatterND",
        "Selu",
        "Shrink",
        "Sigmoid",
        "Sign",
        "Sin",
    ),
    *(
        "Sinh",
        "Softmax",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Swish",
        "Tan",
        "Tanh",
        "TensorScatter",
        "ThresholdedRelu",
        "Trilu",
    ),
)
BROADCAST = (
    *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual"),
    *("Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor"),
)

RULES: dict[OpKey, ShapeRule] = {
    **{("", name): same for name in SAME},
    **{("", name): broadcast for name in BROADCAST},
    **{("com.microsoft", name): same for name in ("DequantizeLinear", "QuantizeLinear")},
    ("", "Constant"): constant,
    ("", "Dropout"): same_twice,
    ("", "DynamicQuantizeLinear"): same_and_scalars,
}
