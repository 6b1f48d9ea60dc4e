"""The nodes of one of several packed graphs are taken out of it and read the whole's inputs and weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from ..builder import Builder
from ..recorder import Recorder

DOMAIN = "onnx_llm_passes"  # of the local functions


@dataclass
class Body:
    """The nodes of one graph.

    Attributes:
        name: The graph's name.
        nodes: Its nodes, in order; the graph itself has none any more.
        outputs: The values that are its outputs.
        own: Its initializers that other graphs do not have.
        given: What it reads from the whole: inputs and shared weights.
    """

    name: str
    nodes: list[ir.Node]
    outputs: list[ir.Value]
    own: list[ir.Value] = field(default_factory=list[ir.Value])
    given: list[ir.Value] = field(default_factory=list[ir.Value])

    @classmethod
    def of(cls, name: str, model: ir.Model, whole: ir.Graph, shared: Mapping[str, ir.Value]) -> Body:
        """Takes a graph's nodes out; they read ``whole``'s inputs and the ``shared`` weights from now on."""
        graph = model.graph
        inputs = {value.name: value for value in whole.inputs}
        pairs = [(value, inputs[value.name]) for value in graph.inputs]
        pairs += [(graph.initializers[key], value) for key, value in shared.items()]
        own = [value for key, value in graph.initializers.items() if key not in shared]
        given = [new for old, new in pairs if old.uses() or old.is_graph_output()]
        outputs = [dict(pairs).get(value, value) for value in graph.outputs]
        graph.outputs.clear()
        for old, new in pairs:
            old.replace_all_uses_with(new)
        nodes = list(graph)
        graph.remove(nodes)
        for value in own:
            del graph.initializers[value.name or ""]
        return cls(name, nodes, outputs, own, given)


def branch_of(body: Body, model: ir.Model, owner: str) -> ir.Graph:
    """The body as a branch: no inputs, outputs under names of its own; what it hands on goes through Identity."""
    made = {id(value) for node in body.nodes for value in node.outputs}
    branch = ir.Graph([], [], nodes=body.nodes, initializers=body.own, name=body.name)
    builder = Builder(branch, owner)
    for at, value in enumerate(body.outputs):
        own = id(value) in made and value not in branch.outputs
        name = f"{body.name}/output_{at}"
        branch.outputs.append(value if own else builder.op("Identity", [value], name, like=value))
    builder.place_end()
    for value, output in zip(branch.outputs, model.graph.outputs, strict=True):
        value.name = f"{body.name}/{output.name}"
    return branch


def function_of(body: Body, model: ir.Model, owner: str) -> ir.Graph:
    """A branch of one call; the body becomes a local function that takes what it reads, ``decode_k4`` as Decode_K4."""
    given = list(body.given)
    branch = branch_of(body, model, owner)
    constants = Builder(branch, owner)
    for value in body.own:
        _as_constant(branch, value, constants)
    results = list(branch.outputs)
    formals: list[ir.Value] = []
    for value in given:
        formal = ir.Value(name=value.name, type=value.type, shape=None)
        for use in list(value.uses()):
            if any(use.node.graph is scope for scope in (branch, *branch.subgraphs())):
                use.node.replace_input_with(use.idx, formal)
        formals.append(formal)
    nodes = list(branch)
    branch.outputs.clear()
    branch.remove(nodes)
    name = "_".join(part.capitalize() for part in body.name.split("_"))
    inner = ir.Graph(formals, results, nodes=nodes, name=name, opset_imports=dict(model.opset_imports))
    function = ir.Function(DOMAIN, name, graph=inner, attributes=[])
    model.functions[function.identifier()] = function
    model.opset_imports[DOMAIN] = 1
    caller = ir.Graph([], [], nodes=[], name=body.name)
    builder = Recorder(caller, owner)
    outputs = builder.ops(name, given, body.name, len(results), domain=DOMAIN, exact=True)
    for output, result in zip(outputs, results, strict=True):
        output.name, output.type, output.shape = result.name, result.type, result.shape
    builder.place_end()
    caller.outputs.extend(outputs)
    return caller


def _as_constant(branch: ir.Graph, value: ir.Value, builder: Builder) -> None:
    """Functions have no initializers (FunctionProto, onnx.in.proto): what is the body's own becomes a node."""
    name = value.name or ""
    made = builder.op("Constant", [], name, {"value": value.const_value}, like=value)
    del branch.initializers[name]
    value.replace_all_uses_with(made)
    made.name = name
    builder.place_before(branch[0])
