"""Binds an original graph to the sizes that were written into its result, so that both are given the same inputs."""

from __future__ import annotations

import onnx_ir as ir

from ...ir.rewrite.bind_sizes import bound_in
from ...ir.symbolic.dims import Dim
from ...ir.symbolic.symbols import substitute_symbols


def at_sizes_of(original: ir.Model, result: ir.Model) -> ir.Model:
    """``original`` itself, or a copy of it whose types hold the sizes that ``result`` was bound to."""
    sizes: dict[str, Dim] = dict(bound_in(result))
    if not sizes:
        return original
    copy = original.clone()
    substitute_symbols(copy, sizes)
    return copy
