"""A decoder is cut into its layers, each run by itself, the weights of its products given from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ...ir.core.errors import PassRefused
from ...ir.core.operators import of
from ...ir.interface.places import Places
from ...ir.interface.projections import fixed_values

Arrays = dict[str, np.ndarray]


@dataclass(eq=False)
class Stage:
    """One piece of the graph: a layer, what is before the first, or what is behind the last.

    Attributes:
        number: Its place in the order.
        takes: The values of earlier stages, and the graph inputs, that it reads.
        gives: The values that later stages read, and the graph outputs among ``answers``.
        weights: The weights of products in it, by name; they are inputs of its model.
    """

    number: int
    takes: list[str] = field(default_factory=list[str])
    gives: list[str] = field(default_factory=list[str])
    weights: dict[str, ir.TensorProtocol] = field(default_factory=dict[str, ir.TensorProtocol])

    def model(self, whole: ir.Model, like: Mapping[str, np.ndarray]) -> ir.Model:
        """The stage as a graph of its own; the weights of its products come in as inputs.

        ``like`` has an array for each value that it takes, which tells types.
        """
        graph = ir.convenience.extract(whole.graph, self.takes, self.gives)
        for value in graph.inputs:
            array = like[value.name or ""]
            value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
            value.shape = ir.Shape([None] * array.ndim)
        for name in self.weights:
            value = graph.initializers.pop(name)
            value.const_value = None
            graph.inputs.append(value)
        model = ir.Model(graph, ir_version=whole.ir_version)
        model.functions.update(whole.functions)
        return model


def cut(model: ir.Model, places: Places, answer: str) -> list[Stage]:
    """The stages of a decoder in order; PassRefused where a layer is not told from the others.

    Stage 0 is what comes before the first layer, the last one what comes behind the last.
    """
    layers = places.layers
    if not layers:
        raise PassRefused(
            "no layer of the graph is told by its structure",
            where="sensitivity",
            wanted="attentions spelled out, or fused, with weights before and behind them",
            hint="Put ir-inline first where layers are local functions.",
        )
    order = {layer: number for number, layer in enumerate(layers, 1)}
    fixed, last = fixed_values(model.graph), len(layers) + 1
    stage: dict[ir.Value, int] = dict.fromkeys(model.graph.inputs, 0)
    of_node: dict[ir.Node, int] = {}
    for node in model.graph:
        if fixed.issuperset(node.outputs):
            continue
        before = max((stage.get(v, 0) for v in node.inputs if v is not None), default=0)
        layer = places.values[node.outputs[0]].layer
        own = order.get(layer, 0) if layer is not None else (last if before else 0)
        own = before if of(node).sizes else own
        of_node[node] = max(before, own)
        stage.update(dict.fromkeys(node.outputs, of_node[node]))
    return _stages(model, places, answer, of_node, last)


def _stages(model: ir.Model, places: Places, answer: str, of_node: Mapping[ir.Node, int], last: int) -> list[Stage]:
    stages = [Stage(number) for number in range(last + 1)]
    for node, number in of_node.items():
        for value in node.inputs:
            if value is None or value.name is None:
                continue
            producer = value.producer()
            source = of_node.get(producer) if producer is not None else (-1 if value.is_graph_input() else None)
            if source is None or source == number or value.is_initializer():
                continue
            _add(stages[number].takes, value.name)
            if source >= 0:
                _add(stages[source].gives, value.name)
        for value in node.outputs:
            if value.name == answer:
                _add(stages[number].gives, answer)
        product = places.products.get(node)
        if product is not None and product.weight.const_value is not None:
            stages[number].weights[product.weight.name or ""] = product.weight.const_value
    return stages


def _add(names: list[str], name: str) -> None:
    if name not in names:
        names.append(name)


def crossing(stages: Sequence[Stage]) -> list[str]:
    """Every value that goes from one stage to a later one."""
    return list(dict.fromkeys(name for stage in stages for name in stage.gives))
