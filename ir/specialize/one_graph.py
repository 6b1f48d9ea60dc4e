"""The roles and lengths of a decoder as named bindings of its one graph, as compilers of many sizes read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from ..core.specialization import Specialization, SpecRole, distinct, ordered
from ..interface.axes import Axis
from ..interface.dimensions import DimensionAnalysis
from .naming import unique_names

EXECUTED = "full_batch_exec_size"  # rows of the cache that a prefill runs: for the compiler, no graph has the symbol


def on_one_graph(
    specs: Sequence[Specialization], found: DimensionAnalysis, graph: str, others: Iterable[Specialization]
) -> list[Specialization]:
    """``specs`` as bindings of one graph, named by role: Prefill, Decode, or Decode_0, Decode_1 … where several are.

    Each binds the symbols of the graph's inputs alone; ``graph`` is empty where the program has one. Names are unlike
    those of ``others``. A prefill tells how many rows it runs where an input chooses among the cache's.
    """
    kept = ordered(distinct(specs))
    names = unique_names([spec.role.value.capitalize() for spec in kept], [spec.name for spec in others])
    result: list[Specialization] = []
    for name, spec in zip(names, kept, strict=True):
        binding = {symbol: spec.binding[symbol] for symbol in found.needed if symbol in spec.binding}
        if spec.role is SpecRole.PREFILL and found.groups(Axis.CACHE_BATCH):
            binding[EXECUTED] = found.size(Axis.BATCH, spec.binding) or 1
        result.append(spec.model_copy(update={"name": name, "graph": graph, "binding": binding}))
    return distinct(result)


def has_open_defaults(model: ir.Model) -> bool:
    """Whether an input with a default has a symbol in its shape: what a manifest of one graph has no entry for."""
    optional = (value for value in model.graph.inputs if value.is_initializer())
    return any(not isinstance(dim, int) for value in optional for dim in value.shape or ())
