"""All rules of inference stand in one table a kind, from (domain, op type) to function."""

from __future__ import annotations

from . import (
    ints_compare,
    ints_layout,
    ints_math,
    ints_source,
    shapes_control,
    shapes_elementwise,
    shapes_fused,
    shapes_index,
    shapes_layout,
    shapes_matmul,
    shapes_reduce,
)
from .context import IntRule, OpKey, ShapeRule

SHAPES: dict[OpKey, ShapeRule] = {
    **shapes_elementwise.RULES,
    **shapes_layout.RULES,
    **shapes_matmul.RULES,
    **shapes_reduce.RULES,
    **shapes_index.RULES,
    **shapes_fused.RULES,
    **shapes_control.RULES,
}

CONTENTS: dict[OpKey, IntRule] = {
    **ints_source.RULES,
    **ints_math.RULES,
    **ints_compare.RULES,
    **ints_layout.RULES,
}
