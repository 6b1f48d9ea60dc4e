"""Copies a program so that weight-only products keep their activations whole: no kernel rounds them to 8 bits."""

from __future__ import annotations

import copy

import onnx_ir as ir

from ...ir.core.scopes import all_nodes
from ...ir.program.program import Program

LEVEL = "accuracy_level"
ROUNDING = 4  # onnxruntime 1.32: "4 means input A can be quantized with the same block_size to int8"


def exact_products(program: Program) -> Program:
    """The program with no MatMulNBits that may round its activations; itself where it has none.

    The accuracy level is the least that a kernel must keep. Compared with the same product spelled out, what it rounds
    would be noise of a hundredth of the largest value.
    """
    graphs = {name: (model, _exact(model)) for name, model in program.graphs.items()}
    if all(exact is model for model, exact in graphs.values()):
        return program
    other = copy.copy(program)
    other.graphs = {name: exact for name, (_, exact) in graphs.items()}
    return other


def _exact(model: ir.Model) -> ir.Model:
    if not any(_rounds(node) for node in all_nodes(model)):
        return model
    exact = model.clone()
    for node in all_nodes(exact):
        if _rounds(node):
            del node.attributes[LEVEL]
    return exact


def _rounds(node: ir.Node) -> bool:
    level = node.attributes.get(LEVEL)
    return node.domain == "com.microsoft" and level is not None and not level.is_ref() and level.as_int() == ROUNDING
