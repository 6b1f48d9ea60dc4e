"""Five static decode graphs by hand on protobuf, onnx's C++ inference for the shapes. ``IN OUT``.

Knows the exporter's names. Writes ``OUT`` with ``_k0`` … in its name, beside the weights that all of them refer to.
"""

import sys
from pathlib import Path

import onnx

CONTEXT, SPECULATIVE = 512, (0, 1, 2, 4, 8)


def bind(graph: onnx.GraphProto, sizes: dict[str, int]) -> None:
    """Sizes in the place of symbols, wherever a type is declared."""
    for info in (*graph.input, *graph.output, *graph.value_info):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]


def sizes_of(k: int) -> dict[str, int]:
    """The exporter's symbols for K speculative tokens."""
    past = CONTEXT - k - 1
    total = "past_sequence_length + sequence_length"
    return {"batch_size": 1, "sequence_length": k + 1, "past_sequence_length": past, total: CONTEXT}


if __name__ == "__main__":
    source, target = sys.argv[1], Path(sys.argv[2])
    model = onnx.load(source, load_external_data=False)
    for k in SPECULATIVE:
        clone = onnx.ModelProto()
        clone.CopyFrom(model)
        bind(clone.graph, sizes_of(k))
        clone = onnx.shape_inference.infer_shapes(clone, data_prop=True)
        target.with_name(f"{target.stem}_k{k}.onnx").write_bytes(clone.SerializeToString())
