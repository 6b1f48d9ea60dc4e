"""Inputs that only a draw of tokens reads, behind the logits, are found by walking back from the tokens."""

from __future__ import annotations

from collections.abc import Container

import onnx_ir as ir

from ..core.operators import names, of

_EXTREMES = names(lambda row: "extreme" in row.tells.values())
MAX_NODES = 2000  # of the tail: penalties, bounds and a draw are some hundred


def sampling_inputs(graph: ir.Graph, carried: Container[int]) -> set[ir.Value]:
    """The inputs from which tokens are drawn and no product is computed; ``carried`` holds ids of states' outputs."""
    found: set[ir.Value] = set()
    for output in graph.outputs:
        if id(output) not in carried and output.dtype is not None and output.dtype.is_integer():
            found |= _behind(output)
    return {value for value in found if not _reaches_product(value)} if found else found


def _behind(output: ir.Value) -> set[ir.Value]:
    """The inputs of the nodes between the last products and an output; none where no likeliest token is looked for."""
    work, seen, inputs, looks = [output], set[ir.Value](), set[ir.Value](), False
    while work and len(seen) < MAX_NODES:
        value = work.pop()
        if value in seen:
            continue
        seen.add(value)
        node = value.producer()
        if value.is_graph_input():
            inputs.add(value)
        elif node is not None and of(node).product is None:
            looks = looks or node.op_type in _EXTREMES
            work.extend(operand for operand in node.inputs if operand is not None)
    return inputs if looks else set()


def _reaches_product(value: ir.Value) -> bool:
    work, seen = [value], {value}
    while work:
        for use in work.pop().uses():
            row = of(use.node)
            if row.product is not None or row.mixes_tokens:
                return True
            new = [output for output in use.node.outputs if output not in seen]
            seen.update(new)
            work.extend(new)
    return False
