"""Five static decode graphs by hand on graphsurgeon, onnx's C++ inference for the shapes. ``IN OUT``.

Knows the exporter's names. Writes ``OUT`` with ``_k0`` … in its name, beside the weights that all of them refer to.
"""

import sys
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs

CONTEXT, SPECULATIVE = 512, (0, 1, 2, 4, 8)


def bind(graph: gs.Graph, sizes: dict[str, int]) -> None:
    """Sizes in the place of symbols, wherever a type is declared."""
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Variable) and tensor.shape:
            tensor.shape = [sizes.get(dim, dim) for dim in tensor.shape]


def sizes_of(k: int) -> dict[str, int]:
    """The exporter's symbols for K speculative tokens."""
    past = CONTEXT - k - 1
    total = "past_sequence_length + sequence_length"
    return {"batch_size": 1, "sequence_length": k + 1, "past_sequence_length": past, total: CONTEXT}


if __name__ == "__main__":
    source, target = sys.argv[1], Path(sys.argv[2])
    graph = gs.import_onnx(onnx.load(source, load_external_data=False))
    for k in SPECULATIVE:
        clone = graph.copy()
        bind(clone, sizes_of(k))
        model = onnx.shape_inference.infer_shapes(gs.export_onnx(clone), data_prop=True)
        target.with_name(f"{target.stem}_k{k}.onnx").write_bytes(model.SerializeToString())
