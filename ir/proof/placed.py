"""Manifests that speak of inputs' dimensions (``input_ids[1]``) are translated to the graph's own symbols."""

from __future__ import annotations

import re

from ..core.specialization import Specialization
from ..interface.dimensions import DimensionAnalysis
from ..symbolic.dims import Dim
from ..symbolic.equations import Equation, Solution
from ..symbolic.symbols import dims_of
from .case import Failure

_PLACE = re.compile(r"(.+)\[(\d{1,3})\]", re.DOTALL)


def in_symbols(canonical: DimensionAnalysis, spec: Specialization) -> tuple[Specialization, list[Failure]]:
    """``spec`` with symbols in the place of dimensions, and why some dimensions cannot be; as it is where it has none.

    A dimension that the graph fixes to the same number, or that an expression gives, needs no symbol.
    """
    dims: dict[str, Dim | None] = {
        f"{value.name}[{axis}]": dim
        for value in canonical.model.graph.inputs
        for axis, dim in enumerate(dims_of(value) or ())
    }
    placed = {key: size for key, size in spec.binding.items() if key in dims and _PLACE.fullmatch(key)}
    if not placed:
        return spec, []
    known = Solution(lambda name: (0,))
    failures: list[Failure] = []
    for key, size in placed.items():
        dim = dims[key]
        before = len(known.broken)
        if dim is not None:
            known.add(Equation(dim, size, key))
        if len(known.broken) > before and dim is not None:
            what = f"{key} is {size}, and the graph has {dim} = {known.reduce(dim)} there"
            failures.append(Failure("inputs", key, what, spec.name, nearest=f"{key} = {known.reduce(dim)}"))
    missing = [key for key in dims if key not in placed and not isinstance(dims[key], int)]
    failures += [Failure("inputs", key, f"{key} has no size", spec.name) for key in missing]
    symbols = {name: value for name, value in known.solved.items() if isinstance(value, int) and value >= 0}
    rest = {key: size for key, size in spec.binding.items() if key not in placed}
    return spec.model_copy(update={"binding": {**rest, **symbols}}), failures
