"""Where a subgraph's outputs come out: the outputs of the If that holds it, and functions opened for the search."""

from __future__ import annotations

from collections.abc import Container

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from .base import Branch
from .signatures import Signatures
from .trace import backward, constant_ints, forward

MAX_DEPTH = 16
HIDDEN_RANK = 3  # [B, S, width]


def branch_outputs(graph: ir.Graph) -> dict[int, tuple[ir.Value, ir.Node]]:
    """For each output of each If branch (by id) the If's own output and the If."""
    found: dict[int, tuple[ir.Value, ir.Node]] = {}
    work = [graph]
    while work:
        for node in work.pop():
            if node.op_type != "If" or node.domain:
                continue
            for attribute in node.attributes.values():
                branch = attribute.as_graph()
                work.append(branch)
                for inner, outer in zip(branch.outputs, node.outputs, strict=False):
                    found[id(inner)] = (outer, node)
    return found


def branch_of(holder: ir.Node) -> Branch:
    """The If with the input that decides it: a truth value itself, or a number that is compared with a constant."""
    switch = backward(holder.inputs[0])[0] if holder.inputs and holder.inputs[0] is not None else None
    compared = switch.producer() if switch is not None else None
    value = ""
    if switch is not None and compared is not None and compared.op_type == "Equal" and not compared.domain:
        for given, other in (compared.inputs, tuple(reversed(compared.inputs))):
            constant = constant_ints(other)
            if given is not None and constant is not None and len(constant) == 1:
                switch, value = backward(given)[0], str(constant[0])
                break
    told = switch is not None and switch.is_graph_input()
    name = holder.name or holder.outputs[0].name or ""
    return Branch(name, switch.name or "NAME", value) if told and switch is not None else Branch(name)


def cache_functions(model: ir.Model) -> set[ir.OperatorIdentifier]:
    """The local functions that take a cache-like graph input and are no plain scatter or gather.

    Cache-like is rank 4 or more, and rank 3 (which hidden states have too) where the function hands a graph output out.
    """
    signatures, outputs = Signatures(model), {id(value) for value in model.graph.outputs}
    found: set[ir.OperatorIdentifier] = set()
    for value in model.graph.inputs if model.functions else ():
        rank = len(value.shape) if value.shape is not None else 0
        for node, _ in value.uses() if rank >= HIDDEN_RANK else ():
            known = node.op_identifier() in model.functions
            if not known or signatures.scatter(node) is not None or signatures.gather(node) is not None:
                continue
            if rank > HIDDEN_RANK or _hands_out(node, outputs):
                found.add(node.op_identifier())
    return found


def _hands_out(node: ir.Node, outputs: Container[int]) -> bool:
    return any(id(path.value) in outputs for result in node.outputs for path in forward(result))


def inline_cache_functions(model: ir.Model) -> int:
    """Inlines, in place, every function that a cache enters, nested ones too; returns how many those were."""
    count = 0
    for _ in range(MAX_DEPTH):
        wanted: Container[ir.OperatorIdentifier] = cache_functions(model)
        if not wanted:
            break
        count += len(set(cache_functions(model)))
        InlinePass(criteria=lambda function, names=wanted: function.identifier() in names)(model)
    return count
