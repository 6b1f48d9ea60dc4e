"""Values inside an original that a contract rests on are made outputs of a copy of it."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir


def observing(model: ir.Model, names: Collection[str]) -> ir.Model:
    """The model, or a copy that also gives the named values; names that no node gives are left out."""
    given = {value.name for value in model.graph.outputs}
    made = {value.name for node in model.graph for value in node.outputs if value.name}
    wanted = sorted((set(names) & made) - given)
    if not wanted:
        return model
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    copy.graph.outputs.extend(values[name] for name in wanted)
    return copy
