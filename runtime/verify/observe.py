"""Values inside an original that a contract rests on are made outputs of a copy of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx_ir as ir

from ...ir.core.errors import PassRefused
from ...ir.interface.analysis import GraphAnalysis
from ...ir.program.contract import Inner

OWNER = "verify"


def observing(model: ir.Model, inner: Collection[Inner]) -> ir.Model:
    """The model, or a copy that also gives these values; what it does not compute is left out."""
    given = {value.name for value in model.graph.outputs}
    wanted = sorted((value for value in inner if value.name not in given), key=lambda value: value.name)
    if not wanted:
        return model
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs if value.name}
    copy.graph.outputs.extend(values[asked.name] for asked in wanted if asked.name in values)
    others = [asked for asked in wanted if asked.name not in values]
    copy.graph.outputs.extend(_asked_for(values[asked.beside], asked) for asked in others if asked.beside in values)
    _tap(copy, [asked for asked in others if asked.beside not in values and asked.layer is not None])
    return copy


def _asked_for(norm: ir.Value, asked: Inner) -> ir.Value:
    """The output that an operator leaves out; it has the type of the one beside it."""
    from ...ir.rewrite.layer.open_norm import ask_for

    node = norm.producer()
    assert node is not None, "a node gives it"
    output = ask_for(node, asked.port, asked.name)
    output.type, output.shape = norm.type, norm.shape
    return output


def _tap(model: ir.Model, inner: Sequence[Inner]) -> None:
    """Hidden rows whose value a pass has made anew are found by their layer, where there are such layers."""
    if not inner:
        return
    from ...ir.rewrite.layer.spans import find_boundaries
    from ...ir.rewrite.layer.tap import Tapper
    from ...ir.shapes.float_values import element_types

    known, types = GraphAnalysis(model), element_types(model)
    try:
        spans = find_boundaries(model, known.states, known.roles, types, OWNER)
    except PassRefused:
        return
    tapper, ends = Tapper(model.graph, types, known.facts, OWNER), {span.number: span.end for span in spans}
    for asked in inner:
        if asked.layer in ends:
            tapper.tap(ends[asked.layer], asked.name)
