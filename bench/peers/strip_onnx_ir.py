"""Strip an optimum cache by hand on onnx_ir. ``IN OUT [--no-shapes] [--simplify]``.

Shapes come from onnx-shape-inference; ``--simplify`` folds with onnxscript's ``fold_constants`` and cleans up with
onnx_ir's common passes. Knows the exporter's names and that the graph reads nothing but the length of the past.
"""

import sys

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

PAST, TOTAL, NEW = "past_key_values.", "past_sequence_length + sequence_length", "sequence_length"


def strip(graph: ir.Graph) -> None:
    """Takes the cache out: each Concat gives its new part, each Shape of the past a length of zero."""
    for value in [i for i in graph.inputs if i.name.startswith(PAST)]:
        for node in list(value.consumers()):
            replacement = node.inputs[1] if node.op_type == "Concat" else zero_lengths(graph, node)
            gone = node.outputs[0]
            if gone in graph.outputs:
                graph.outputs.remove(gone)
            gone.replace_all_uses_with(replacement)
            graph.remove(node, safe=True)
        graph.inputs.remove(value)


def zero_lengths(graph: ir.Graph, before: ir.Node) -> ir.Value:
    """A Constant in the place of a Shape of the past."""
    node = ir.node("Constant", [], {"value": ir.tensor(np.zeros(4, np.int64))}, name=f"{before.name}_empty")
    graph.insert_before(before, node)
    return node.outputs[0]


def rename_lengths(graph: ir.Graph) -> None:
    """Past plus new is now new."""
    values = [*graph.inputs, *graph.outputs, *(out for node in graph for out in node.outputs)]
    for value in values:
        if value.shape is not None and any(str(dim) == TOTAL for dim in value.shape):
            value.shape = ir.Shape([NEW if str(dim) == TOTAL else dim for dim in value.shape])


def simplify(model: ir.Model) -> None:
    """Folds constants and shares what is equal, once."""
    from onnxscript.optimizer import fold_constants

    fold_constants(model)
    common.IdentityEliminationPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)


if __name__ == "__main__":
    source, target = sys.argv[1:3]
    model = ir.load(source)
    strip(model.graph)
    common.RemoveUnusedNodesPass()(model)
    rename_lengths(model.graph)
    if "--no-shapes" not in sys.argv:
        import onnx_shape_inference

        onnx_shape_inference.infer_symbolic_shapes(model)
    if "--simplify" in sys.argv:
        simplify(model)
    ir.save(model, target)
