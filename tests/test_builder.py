"""The builder of new nodes: names, owners, insertion points, shared values, and what a function's body needs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from onnx_llm_passes.ir.core.verifier import check_structure
from onnx_llm_passes.ir.rewrite.builder import Builder
from onnx_llm_passes.ir.rewrite.names import FreshNames
from onnx_llm_passes.ir.rewrite.ownership import mark, mark_unclaimed, owner_of
from onnx_llm_passes.ir.rewrite.size_arithmetic import anchors_of, emit_sizes
from onnx_llm_passes.ir.symbolic.dims import parse

from .small_graphs import BRANCH, CALL, CHAIN

FLOAT = ir.DataType.FLOAT


def nodes_of(scope: ir.Graph | ir.Function) -> list[str]:
    return [f"{node.name}:{node.op_type}" for node in scope]


def check(model: ir.Model) -> None:
    check_structure(model)
    onnx.checker.check_model(ir.to_proto(model))


def test_a_node_has_the_pass_and_its_name_before_anything_is_placed() -> None:
    model = ir.from_onnx_text(CHAIN)
    builder = Builder(model.graph, "mine")
    made = builder.op("Neg", [model.graph.inputs[0]], "flipped", shape=("N",), dtype=FLOAT)
    node = made.producer()
    assert node is not None and node.graph is None
    assert (made.name, node.name, owner_of(node), made.dtype) == ("mine/flipped", "mine/flipped", "mine", FLOAT)
    assert len(model.graph) == 3


def test_every_insertion_point() -> None:
    model = ir.from_onnx_text(CHAIN)
    x, second = model.graph.inputs[0], model.graph[1]
    builder = Builder(model.graph, "p")
    for name, place in (
        ("a", builder.place_front),
        ("b", builder.place_front),
        ("before", lambda: builder.place_before(second)),
        ("after", lambda: builder.place_after(second)),
        ("made", lambda: builder.place_after(model.graph.outputs[0])),
        ("input", lambda: builder.place_after(x)),
        ("end", builder.place_end),
    ):
        builder.op("Neg", [x], name, dtype=FLOAT)
        place()
    names = [node.name for node in model.graph]
    assert names == "p/a p/b p/input first p/before second p/after third p/made p/end".split()
    check(model)


def test_place_front_of_a_graph_without_nodes() -> None:
    model = ir.from_onnx_text('<ir_version: 10, opset_import: ["" : 18]> g (float[N] x) => (float[N] x) {}')
    builder = Builder(model.graph, "p")
    builder.place_front()
    builder.op("Neg", [model.graph.inputs[0]], "a")
    builder.place_front()
    assert nodes_of(model.graph) == ["p/a:Neg"]


def test_a_node_of_a_body_is_placed_there_and_not_shared_outside() -> None:
    model = ir.from_onnx_text(BRANCH)
    x = model.graph.inputs[1]
    branch = model.graph[1].attributes["then_branch"].as_graph()
    builder = Builder(model.graph, "p")
    inner = builder.dims([(x, 0)], "rows")
    builder.place_before(branch[0])
    outer = builder.dims([(x, 0)], "rows")
    builder.place_front()
    assert inner is not outer and builder.dims([(x, 0)], "rows") is outer
    assert nodes_of(branch)[:2] == ["p/x/shape:Shape", "p/x/dim_0:Gather"]
    assert nodes_of(model.graph)[:2] == ["p/x/shape_2:Shape", "p/x/dim_0_2:Gather"]
    assert list(model.graph.initializers) == ["p/0"], "a number is an initializer, so one for all"
    check(model)


def test_names_avoid_those_of_bodies_and_number_themselves() -> None:
    model = ir.from_onnx_text(BRANCH)
    names = FreshNames(model.graph)
    taken = [names.take(wish) for wish in ("p", "p", "h", "x", "new", "new")]
    assert taken == ["p_2", "p_3", "h_2", "x_2", "new", "new_2"]


def test_an_exact_name_leaves_the_pass_out() -> None:
    model = ir.from_onnx_text(CHAIN)
    builder = Builder(model.graph, "p")
    assert builder.op("Neg", [None], "a", exact=True).name == "a_2"


def test_several_outputs_and_a_domain_that_is_imported() -> None:
    model = ir.from_onnx_text(CHAIN)
    outputs = Builder(model.graph, "p").ops("Split", [model.graph.inputs[0]], "parts", 2, domain="my")
    assert [value.name for value in outputs] == ["p/parts", "p/parts/1"]
    assert model.opset_imports["my"] == 1


def test_like_declares_another_values_type_and_shape() -> None:
    model = ir.from_onnx_text(CHAIN)
    x = model.graph.inputs[0]
    builder = Builder(model.graph, "p")
    assert (same := builder.op("Neg", [x], "a", like=x)).dtype is FLOAT and str(same.shape) == str(x.shape)
    assert builder.op("Neg", [x], "b", dtype=None).type is None


def test_equal_requests_are_one_value() -> None:
    model = ir.from_onnx_text(CHAIN)
    x = model.graph.inputs[0]
    builder = Builder(model.graph, "p")
    assert builder.ints([1, 2], "a") is builder.ints([1, 2], "b")
    assert builder.ints(1, "scalar") is not builder.ints([1], "vector")
    assert builder.dims([2, 3], "numbers") is builder.ints([2, 3], "other")
    assert builder.scalar((x, 0), "n") is builder.scalar((x, 0), "m")
    assert builder.count((x, 0), "n") is builder.count((x, 0), "m")
    assert builder.unsqueeze(x, [0], "u") is builder.unsqueeze(x, [0], "v")
    assert builder.unsqueeze(x, [], "none") is x and builder.cast(x, FLOAT, "none") is x


def test_a_function_holds_constants_as_nodes() -> None:
    model = ir.from_onnx_text(CALL)
    (function,) = model.functions.values()
    builder = Builder(function, "p")
    two = builder.constant(ir.tensor(np.float32([2])), "two")
    total = builder.op("Add", [function.inputs[0], two], "a", dtype=FLOAT)
    builder.replace(function[0], [total])
    assert nodes_of(function) == ["p/two:Constant", "p/a:Add"]
    assert [value.name for value in function.outputs] == ["b"]
    check(model)


def test_replace_hands_over_names_types_and_graph_outputs() -> None:
    model = ir.from_onnx_text(CHAIN)
    third = model.graph[2]
    builder = Builder(model.graph, "p")
    zero = builder.constant(ir.tensor(np.float32([0])), "zero")
    builder.replace(third, [builder.op("Sub", [zero, third.inputs[0]], "negated", dtype=FLOAT)])
    assert [value.name for value in model.graph.outputs] == ["y"] and third.graph is None
    assert str(model.graph.outputs[0].shape) == "[N]"
    check(model)


def test_aside_has_a_tape_of_its_own_and_the_same_names() -> None:
    model = ir.from_onnx_text(CHAIN)
    builder = Builder(model.graph, "p")
    builder.op("Neg", [model.graph.inputs[0]], "a")
    other = builder.aside()
    other.op("Neg", [model.graph.inputs[0]], "a")
    other.place_end()
    builder.place_front()
    assert [nodes_of(model.graph)[at] for at in (0, -1)] == ["p/a:Neg", "p/a_2:Neg"]


def test_a_node_outside_of_any_graph_is_no_place() -> None:
    builder = Builder(ir.from_onnx_text(CHAIN).graph, "p")
    with pytest.raises(ValueError, match="stands in no graph"):
        builder.place_before(ir.node("Neg", []))


def test_sizes_are_sums_and_products_of_the_axes_of_inputs() -> None:
    text = '<ir_version: 10, opset_import: ["" : 18]> g (float[N, M] x) => (float[N, M] y) { y = Relu (x) }'
    model = ir.from_onnx_text(text)
    x, builder = model.graph.inputs[0], Builder(model.graph, "p")
    anchors = anchors_of([x], [(parse("N"), parse("M"))])
    sizes = emit_sizes(builder, [parse("2*N*M + 3"), 7], anchors, "sizes")
    builder.place_front()
    sizes.type, sizes.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([2])
    model.graph.outputs.append(sizes)
    check(model)
    reference = ReferenceEvaluator(ir.to_proto(model))
    assert reference.run(None, {"x": np.zeros((2, 5), np.float32)})[1].tolist() == [23, 7]
    with pytest.raises(KeyError):
        emit_sizes(builder, [parse("Z")], anchors, "unknown")


def test_owners() -> None:
    node = ir.node("Neg", [])
    assert owner_of(node) is None
    mark_unclaimed([node], "first")
    mark_unclaimed([node], "second")
    assert owner_of(node) == "first"
    mark(node, "third")
    assert owner_of(node) == "third"


def test_no_other_file_makes_nodes_or_writes_owners() -> None:
    root = Path(__file__).parent.parent
    home = {root / "ir/rewrite/recorder.py", root / "ir/rewrite/ownership.py", root / "ir/serialization/deserialize.py"}
    files = [path for floor in ("ir", "passes") for path in (root / floor).rglob("*.py") if path not in home]
    assert len(files) > 100
    by_hand = re.compile(r"""\bir\.[Nn]ode\(|metadata_props(\[|\.setdefault\()["']pass["']""")
    assert [path.name for path in files if by_hand.search(path.read_text(encoding="utf-8"))] == []
