"""Five static decode graphs by hand on onnx_ir, onnx-shape-inference for the shapes. ``IN OUT``.

Knows the exporter's names. Writes ``OUT`` with ``_k0`` … in its name, beside the weights that all of them refer to.
"""

import sys
from pathlib import Path

import onnx_ir as ir
import onnx_shape_inference

CONTEXT, SPECULATIVE = 512, (0, 1, 2, 4, 8)


def bind(model: ir.Model, sizes: dict[str, int]) -> None:
    """Sizes in the place of symbols, wherever a type is declared."""
    graph = model.graph
    for value in (*graph.inputs, *graph.outputs, *(out for node in graph for out in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([sizes.get(str(dim), dim) for dim in value.shape])


def sizes_of(k: int) -> dict[str, int]:
    """The exporter's symbols for K speculative tokens."""
    past = CONTEXT - k - 1
    total = "past_sequence_length + sequence_length"
    return {"batch_size": 1, "sequence_length": k + 1, "past_sequence_length": past, total: CONTEXT}


if __name__ == "__main__":
    source, target = sys.argv[1], Path(sys.argv[2])
    model = ir.load(source)
    for k in SPECULATIVE:
        clone = model.clone()
        bind(clone, sizes_of(k))
        onnx_shape_inference.infer_symbolic_shapes(clone)
        ir.save(clone, target.with_name(f"{target.stem}_k{k}.onnx"))
