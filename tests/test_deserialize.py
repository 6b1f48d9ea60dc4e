"""What reads plain graphs itself must give what onnx_ir gives, and leave to it what is not plain."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnx_ir as ir
import pytest
from onnx import parser

from onnx_llm_passes.ir.serialization.deserialize import MAX_SHARED, deserialize

PLAIN = """<ir_version: 10, opset_import: ["" : 21, "own" : 1], producer_name: "t", model_version: 3>
main (float[N, 4] x, int64 unused) => (float[N, 4] y, z)
<float[2] w = {1, 2}, float[N, 4] a>
{
  a = Relu (x)
  k = Constant <value = int64[2] {0, -1}> ()
  b, c = Split <axis = 1, num_outputs = 2> (a)
  y = own.Op <alpha = 0.5, sizes = [1, 2], rates = [1.0], word = "n"> (a, , w)
  z = Reshape (b, k)
}"""


def _subgraph(model: onnx.ModelProto) -> None:
    body = parser.parse_graph("inner () => (float[N, 4] r) { r = Identity (a) }")
    node = onnx.helper.make_node("If", ["c"], ["i"], then_branch=body, else_branch=body)
    model.graph.node.append(node)


def _undefined(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "nowhere"


def _annotated(model: onnx.ModelProto) -> None:
    entry = onnx.StringStringEntryProto(key="SCALE_TENSOR", value="w")
    model.graph.quantization_annotation.add(tensor_name="a").quant_parameter_tensor_names.append(entry)


def _described(model: onnx.ModelProto) -> None:
    model.graph.value_info[0].doc_string = "a value"
    model.graph.node[0].doc_string = "a node"
    model.graph.node[0].metadata_props.add(key="k", value="v")
    model.graph.output[0].type.denotation = "TENSOR"
    model.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"


def _kinds(model: onnx.ModelProto) -> None:
    info = model.graph.input.add(name="list")
    info.type.sequence_type.elem_type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    model.graph.initializer.add(name="x", dims=[1, 4], data_type=1, float_data=[0, 1, 2, 3])


@pytest.mark.parametrize("edit", [lambda m: None, _subgraph, _undefined, _annotated, _described, _kinds])
def test_gives_what_onnx_ir_gives(edit: Callable[[onnx.ModelProto], None]) -> None:
    model = parser.parse_model(PLAIN)
    edit(model)
    _check_same(model)


def test_a_name_given_twice_is_told_as_onnx_ir_tells_it() -> None:
    model = parser.parse_model(PLAIN)
    model.graph.node[0].output[0] = "x"
    with pytest.raises(ir.serde.SerdeError, match="_deserialize_graph"):
        deserialize(model)


def test_values_of_one_shape_share_it_but_not_their_type() -> None:
    graph = deserialize(parser.parse_model(PLAIN)).graph
    first, second = graph.inputs[0], graph.outputs[0]
    assert first.shape is second.shape
    first.dtype = ir.DataType.FLOAT16
    assert second.dtype is ir.DataType.FLOAT


def test_small_attributes_that_are_equal_are_one_and_large_ones_are_not() -> None:
    model = parser.parse_model(PLAIN)
    for name, size in (("s", 1), ("s2", 1), ("l", MAX_SHARED), ("l2", MAX_SHARED)):
        tensor = onnx.helper.make_tensor("", onnx.TensorProto.INT64, [size], [7] * size)
        model.graph.node.append(onnx.helper.make_node("Constant", [], [name], value=tensor))
    one, same, large, other = (node.attributes["value"] for node in list(deserialize(model).graph)[-4:])
    assert one is same
    assert large is not other
    _check_same(model)


def _check_same(model: onnx.ModelProto) -> None:
    """The same messages, and the same uses, however often a value is read."""
    ours, theirs = deserialize(model), ir.from_proto(model)
    assert ir.to_proto(ours) == ir.to_proto(theirs)
    for one, other in zip(ours.graph, theirs.graph, strict=True):
        assert one.name == other.name
        assert [len(value.uses()) for value in one.outputs] == [len(value.uses()) for value in other.outputs]
