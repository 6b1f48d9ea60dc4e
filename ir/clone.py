"""A graph that differs from another one in dimensions only: a binding, and the graph it is a binding of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from .scopes import nested
from .symbols import dims_of, substitute_symbols


@dataclass(frozen=True)
class Clone:
    """One graph of a program whose nodes and weights are those of another; no copy is made until somebody needs one.

    Attributes:
        base: The name of that other graph in ``Program.graphs``.
        binding: Symbol -> size, under the base's own names; empty where the clone stays symbolic.
    """

    base: str
    binding: Mapping[str, int] = field(default_factory=dict[str, int])


def materialize(base: ir.Model, clone: Clone, name: str) -> ir.Model:
    """A graph of its own, named ``name``, with every dimension bound; weights stay the same objects."""
    model = base.clone()
    model.graph.name = name
    substitute_symbols(model, clone.binding)
    return model


def inner_symbols(model: ir.Model) -> set[str]:
    """Symbols that stand in types inside If and Loop bodies: a clone's shared nodes would keep them."""
    from .dims import free_symbols

    found: set[str] = set()
    for scope in nested(model.graph):
        if scope is model.graph:
            continue
        for value in (*scope.inputs, *(output for node in scope for output in node.outputs)):
            for dim in dims_of(value) or ():
                found |= free_symbols(dim)
    return found
