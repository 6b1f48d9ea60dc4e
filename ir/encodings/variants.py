"""How each operator is quantized: one table for all graphs, with entries of prefill or decode where they differ."""

from __future__ import annotations

import enum

from ..errors import PassRefused


class Variant(enum.Enum):
    """What kind of graph an operator stands in."""

    COMMON = "common"
    PREFILL = "prefill"
    DECODE = "decode"


class Ports(enum.Enum):
    """Which of an operator's float tensors lie on a grid."""

    ALL = "all"  # what it reads and what it gives
    OUTPUTS = "outputs"  # it reads floats as they are
    STATES = "states"  # its insides stay floats; only the carried tensors and its answer are tied


_ALL = (
    *("Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat", "Conv", "ConvTranspose"),
    *("Cos", "CumSum", "Div", "Einsum", "Elu", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements"),
    *("GatherND", "Gelu", "Gemm", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization"),
    *("LayerNormalization",),
    *("LeakyRelu", "Log", "LogSoftmax", "MatMul", "Max", "MaxPool", "Mean", "Min", "Mul", "Neg", "Pad", "Pow", "PRelu"),
    *("RMSNormalization", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare", "Relu"),
    *("Reshape", "RotaryEmbedding", "ScatterElements", "ScatterND", "Sigmoid", "Sign", "Sin", "Slice", "Softmax"),
    *("Softplus", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Swish", "Tanh", "TensorScatter", "Tile", "TopK"),
    *("Transpose", "Trilu", "Unsqueeze", "Where", "BiasGelu", "FastGelu", "FusedMatMul", "QuickGelu"),
    *("SimplifiedLayerNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"),
)
_STATES = (
    *("Attention", "DecoderMaskedMultiHeadAttention", "GroupQueryAttention", "MultiHeadAttention", "SparseAttention"),
)
_OUTPUTS = ("MatMulNBits", "GatherBlockQuantized", "ConstantOfShape", "OneHot", "Range")

RULES: dict[tuple[str, Variant], Ports] = {
    **{(op_type, Variant.COMMON): Ports.ALL for op_type in _ALL},
    **{(op_type, Variant.COMMON): Ports.STATES for op_type in _STATES},
    **{(op_type, Variant.COMMON): Ports.OUTPUTS for op_type in _OUTPUTS},
}
"""Operator type and variant -> which ports; encodings themselves are stored once for all variants."""


def rule_of(op_type: str, variant: Variant = Variant.COMMON) -> Ports:
    """The entry of exactly this variant, else the common one; PassRefused, naming the operator, where neither is."""
    found = RULES.get((op_type, variant)) or RULES.get((op_type, Variant.COMMON))
    if found is None:
        raise PassRefused(
            f"no rule says how {op_type} is quantized",
            found=f"variant {variant.value}",
            hint=f"Leave it in float with keep={op_type}.",
        )
    return found


def add_rule(op_type: str, ports: Ports, variant: Variant = Variant.COMMON) -> None:
    """Adds an entry; PassRefused where this operator has one of this variant already."""
    if (op_type, variant) in RULES:
        raise PassRefused(f"{op_type} has a rule already", found=f"variant {variant.value}")
    RULES[op_type, variant] = ports
