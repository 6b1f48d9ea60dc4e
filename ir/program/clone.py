"""A clone is a graph that differs from another one in dimensions only: it is a binding of that graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from ..core.scopes import nested
from ..interface.analysis import inherit_roles
from ..shapes.infer import propagate
from ..symbolic.dims import free_symbols
from ..symbolic.symbols import dims_of, substitute_symbols


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
    """A graph of its own, named ``name``, with every dimension bound; weights stay the same objects.

    Its inputs have the roles that they have in ``base``.
    """
    model = base.clone()
    inherit_roles(model, base)
    model.graph.name = name
    substitute_symbols(model, clone.binding)
    model.metadata_props.update(written_sizes(clone.binding))
    if clone.binding:
        _correct(model)
    return model


def _correct(model: ir.Model) -> None:
    """Replaces declared shapes that contradict what follows from the inputs: value infos of exporters may lie."""
    facts = propagate(model)
    outputs = set(model.graph.outputs)
    for value in (value for node in model.graph for value in node.outputs):
        found = facts.shape(value)
        if value.shape is None or found is None or value in outputs or len(found) != len(value.shape):
            continue
        pairs = zip(value.shape, found, strict=True)
        if any(isinstance(dim, int) and isinstance(new, int) and dim != new for dim, new in pairs):
            dims = [new if isinstance(new, int) else old for old, new in zip(value.shape, found, strict=True)]
            value.shape = ir.Shape(dims)


def written_sizes(binding: Mapping[str, int]) -> dict[str, str]:
    """The metadata by which a graph tells the sizes that were written into it."""
    from ..rewrite.bind_sizes import BOUND

    return {f"{BOUND}{name}": str(size) for name, size in sorted(binding.items())}


def inner_symbols(model: ir.Model) -> set[str]:
    """Symbols that stand in types inside If and Loop bodies: a clone's shared nodes would keep them."""
    found: set[str] = set()
    for scope in nested(model.graph):
        if scope is model.graph:
            continue
        for value in (*scope.inputs, *(output for node in scope for output in node.outputs)):
            for dim in dims_of(value) or ():
                found |= free_symbols(dim)
    return found
