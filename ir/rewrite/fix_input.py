"""A graph input that is fixed to a constant: its uses read the constant, and the branches it decides are inlined."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from ..core.scopes import nested
from .simplify.branches import inline_branches


def fix_input(model: ir.Model, fixed: ir.Value, content: np.ndarray[Any, Any], owner: str) -> int:
    """Feeds ``content`` to every use of a graph input and inlines what that decides; returns how many Ifs went.

    The input itself stays in the graph's list: the caller takes it out. The constant is named ``owner/input``.
    """
    name = f"{owner}/{fixed.name}"
    tensor = ir.Tensor(content, dtype=fixed.dtype, name=name)
    constant = ir.Value(name=name, shape=ir.Shape(content.shape), type=fixed.type, const_value=tensor)
    model.graph.register_initializer(constant)
    fixed.replace_all_uses_with(constant)
    inlined = 0
    for _ in range(sum(1 for _ in nested(model.graph))):  # each round opens one level of nesting
        found = inline_branches(model)
        inlined += found
        if not found:
            break
    if not constant.uses():
        del model.graph.initializers[name]
    return inlined
