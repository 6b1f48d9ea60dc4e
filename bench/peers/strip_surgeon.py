"""Strip an optimum cache by hand on onnx-graphsurgeon, then ``onnx.shape_inference``.

``IN OUT [--no-shapes] [--simplify]``. Weights stay references (``load_external_data=False``). ``--simplify`` folds
with graphsurgeon's ``fold_constants``, which runs onnxruntime. Knows the exporter's names and that the graph reads
nothing but the length of the past from its Shape.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs

PAST, TOTAL, NEW = "past_key_values.", "past_sequence_length + sequence_length", "sequence_length"


def strip(graph: gs.Graph) -> None:
    """Takes the cache out: each Concat gives its new part, each Shape of the past a length of zero."""
    outputs = {output.name for output in graph.outputs}
    for tensor in [i for i in graph.inputs if i.name.startswith(PAST)]:
        for node in list(tensor.outputs):
            gone = node.outputs[0]
            outputs.discard(gone.name)
            new = node.inputs[1] if node.op == "Concat" else gs.Constant(f"{node.name}_empty", np.zeros(4, np.int64))
            for consumer in list(gone.outputs):
                consumer.inputs = [new if each is gone else each for each in consumer.inputs]
            node.outputs.clear()
    graph.inputs = [i for i in graph.inputs if not i.name.startswith(PAST)]
    graph.outputs = [o for o in graph.outputs if o.name in outputs]
    graph.cleanup()


def rename_lengths(graph: gs.Graph) -> None:
    """Past plus new is now new."""
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Variable) and tensor.shape and TOTAL in tensor.shape:
            tensor.shape = [NEW if dim == TOTAL else dim for dim in tensor.shape]


if __name__ == "__main__":
    source, target = sys.argv[1:3]
    graph = gs.import_onnx(onnx.load(source, load_external_data=False))
    strip(graph)
    rename_lengths(graph)
    if "--simplify" in sys.argv:
        graph.fold_constants().cleanup()
    model = gs.export_onnx(graph)
    if "--no-shapes" not in sys.argv:
        model = onnx.shape_inference.infer_shapes(model)
    Path(target).write_bytes(model.SerializeToString())
