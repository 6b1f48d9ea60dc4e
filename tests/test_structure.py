"""The structural verifier: every rule broken once, and what is allowed passes."""

from __future__ import annotations

import re
from collections.abc import Callable

import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.core.errors import ProgramInvalid
from onnx_llm_passes.ir.core.verifier import check_structure

from .small_graphs import BRANCH, CALL, CHAIN


@pytest.mark.parametrize("text", [CHAIN, BRANCH, CALL])
def test_valid_graphs_pass(text: str) -> None:
    check_structure(ir.from_onnx_text(text))


def test_inputs_that_are_outputs_defaults_and_left_out_inputs_pass() -> None:
    text = """\
<ir_version: 10, opset_import: ["" : 18]>
g (float[N] x, float[1] w) => (float[N] x, float[N] y)
<float[1] w = {1}>
{
   y = Clip (x, , w)
}"""
    check_structure(ir.from_onnx_text(text))


def body(model: ir.Model, name: str = "then_branch") -> ir.Graph:
    """A body of the graph's If."""
    return model.graph[1].attributes[name].as_graph()


def removed_producer(model: ir.Model) -> None:
    model.graph.remove(model.graph[0])


def out_of_order(model: ir.Model) -> None:
    model.graph.insert_after(model.graph[2], model.graph[1])


def read_from_nowhere(model: ir.Model) -> None:
    model.graph[0].replace_input_with(0, ir.Value(name="ghost"))


def name_twice(model: ir.Model) -> None:
    model.graph[1].outputs[0].name = "a"


def name_of_an_input(model: ir.Model) -> None:
    model.graph[1].outputs[0].name = "x"


def name_of_a_weight(model: ir.Model) -> None:
    model.graph[1].outputs[0].name = "w"


def weight_without_value(model: ir.Model) -> None:
    model.graph.initializers["w"].const_value = None


def nameless_value(model: ir.Model) -> None:
    model.graph[0].outputs[0].name = None


def nameless_input(model: ir.Model) -> None:
    model.graph.inputs[0].name = ""


def output_without_type(model: ir.Model) -> None:
    model.graph.outputs[0].type = None


def output_twice(model: ir.Model) -> None:
    model.graph.outputs.append(model.graph.outputs[0])


def output_of_nothing(model: ir.Model) -> None:
    model.graph.outputs[0] = ir.Value(name="y", type=ir.TensorType(ir.DataType.FLOAT))


def unknown_operator(model: ir.Model) -> None:
    model.graph[0].domain = "strange"


def function_gone(model: ir.Model) -> None:
    model.functions.clear()
    del model.opset_imports["my"]


def broken_function(model: ir.Model) -> None:
    function = next(iter(model.functions.values()))
    function[0].replace_input_with(0, ir.Value(name="ghost"))


def broken_body(model: ir.Model) -> None:
    body(model)[0].replace_input_with(0, ir.Value(name="ghost"))


def body_reads_a_later_value(model: ir.Model) -> None:
    model.graph.insert_after(model.graph[1], model.graph[0])


def body_reads_its_sister(model: ir.Model) -> None:
    body(model)[0].replace_input_with(0, body(model, "else_branch")[0].outputs[0])


UNKNOWN = "a node reads a value that does not exist before it"


@pytest.mark.parametrize(
    ("text", "damage", "wanted"),
    [
        (CHAIN, removed_producer, f"node 'second' (Mul): {UNKNOWN}; found 'a', whose node 'first'"),
        (CHAIN, out_of_order, f"node 'third' (Neg): {UNKNOWN}; found 'b', which node 'second' (Mul) computes later"),
        (CHAIN, read_from_nowhere, f"node 'first' (Relu): {UNKNOWN}; found 'ghost', which is no input"),
        (CHAIN, name_twice, "node 'second' (Mul): a name is given to two values; found 'a'"),
        (CHAIN, name_of_an_input, "node 'second' (Mul): a name is given to two values; found 'x'"),
        (CHAIN, name_of_a_weight, "node 'second' (Mul): a name is given to two values; found 'w'"),
        (CHAIN, weight_without_value, "graph 'chain': an initializer has no value; found 'w'"),
        (CHAIN, nameless_value, "node 'first' (Relu): a value that is used has no name"),
        (CHAIN, nameless_input, "graph 'chain': an input has no name"),
        (CHAIN, output_without_type, "graph 'chain': an output has no type; found 'y'"),
        (CHAIN, output_twice, "graph 'chain': two outputs have one name; found 'y'"),
        (CHAIN, output_of_nothing, "graph 'chain': an output is computed nowhere in its graph; found 'y'"),
        (CHAIN, unknown_operator, "node 'first' (Relu): a node calls what is not defined; found strange::Relu"),
        (CALL, function_gone, "node 'call' (twice): a node calls what is not defined; found my::twice"),
        (CALL, broken_function, "function 'my::twice', node 'sum' (Add): a node reads"),
        (BRANCH, broken_body, "graph 'branch', node 'if' (If), then_branch 'yes', node 'p' (Neg): a node reads"),
        (BRANCH, body_reads_a_later_value, f"node 'p' (Neg): {UNKNOWN}; found 'h'"),
        (BRANCH, body_reads_its_sister, f"node 'p' (Neg): {UNKNOWN}; found 'q'"),
    ],
)
def test_each_rule_is_kept(text: str, damage: Callable[[ir.Model], None], wanted: str) -> None:
    model = ir.from_onnx_text(text)
    damage(model)
    with pytest.raises(ProgramInvalid, match=re.escape(wanted)):
        check_structure(model)
