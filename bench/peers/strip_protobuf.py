"""Strip an optimum cache by hand on plain protobuf, then ``onnx.shape_inference``. ``IN OUT [--no-shapes]``.

Knows the exporter's names and that the graph reads nothing but the length of the past from its Shape.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

PAST, TOTAL, NEW = "past_key_values.", "past_sequence_length + sequence_length", "sequence_length"


def strip(graph: onnx.GraphProto) -> onnx.GraphProto:
    """Takes the cache out: each Concat gives its new part, each Shape of the past a length of zero."""
    new_part: dict[str, str] = {}
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Concat" and node.input[0].startswith(PAST):
            new_part[node.output[0]] = node.input[1]
            continue
        if node.op_type == "Shape" and node.input[0].startswith(PAST):
            node.op_type = "Constant"
            del node.input[:]
            node.attribute.add().CopyFrom(onnx.helper.make_attribute("value", EMPTY))
        kept.append(node)
    for node in kept:
        for position, name in enumerate(node.input):
            if name in new_part:
                node.input[position] = new_part[name]
    names = {output.name for output in graph.output} - set(new_part)
    nodes = alive(kept, set(names))
    used = {name for node in nodes for name in node.input}
    made = {name for node in nodes for name in node.output}
    stripped = onnx.GraphProto(name=graph.name)
    stripped.node.extend(nodes)
    stripped.input.extend(i for i in graph.input if not i.name.startswith(PAST))
    stripped.output.extend(o for o in graph.output if o.name in names)
    stripped.initializer.extend(i for i in graph.initializer if i.name in used)
    stripped.value_info.extend(v for v in graph.value_info if v.name in made)
    return stripped


def alive(nodes: list[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    """The nodes that something wanted depends on, in their order."""
    found: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if any(name in wanted for name in node.output):
            wanted.update(node.input)
            found.append(node)
    return found[::-1]


def rename_lengths(graph: onnx.GraphProto) -> None:
    """Past plus new is now new."""
    for info in (*graph.input, *graph.output, *graph.value_info):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param == TOTAL:
                dim.dim_param = NEW


EMPTY = numpy_helper.from_array(np.zeros(4, np.int64))

if __name__ == "__main__":
    source, target = sys.argv[1:3]
    model = onnx.load(source, load_external_data=False)
    model.graph.CopyFrom(strip(model.graph))
    rename_lengths(model.graph)
    if "--no-shapes" not in sys.argv:
        model = onnx.shape_inference.infer_shapes(model)
    Path(target).write_bytes(model.SerializeToString())
