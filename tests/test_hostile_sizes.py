"""Attributes, sizes and numbers that no graph can have, or that would not end: one line that names the place."""

from __future__ import annotations

import functools
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from onnx_llm_passes.cli.app import run
from onnx_llm_passes.ir.core.errors import MAX_LINE, InputError
from onnx_llm_passes.ir.program.program import Program
from onnx_llm_passes.ir.serialization.schemas import MAX_INLINED
from onnx_llm_passes.ir.serialization.tensor_data import check_embedded
from onnx_llm_passes.ir.shapes.described import MAX_SPREAD, is_spread_small
from onnx_llm_passes.ir.shapes.infer import propagate
from onnx_llm_passes.ir.symbolic.algebra import MAX_TERMS, DimensionTooLarge, Expr, symbol
from onnx_llm_passes.ir.symbolic.dims import parse

from .append_graphs import append_dynamo
from .small_graphs import BRANCH

Change = Callable[[onnx.NodeProto], None]


def attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto:
    """A node's attribute."""
    return next(item for item in node.attribute if item.name == name)


def _without(name: str) -> Change:
    return lambda node: node.attribute.remove(attribute(node, name))


def _typed(name: str, kind: int) -> Change:
    def change(node: onnx.NodeProto) -> None:
        attribute(node, name).type = kind  # type: ignore[assignment]

    return change


def _ints(name: str, *items: int) -> Change:
    def change(node: onnx.NodeProto) -> None:
        attribute(node, name).ints[:] = items

    return change


def _int(name: str, item: int) -> Change:
    def change(node: onnx.NodeProto) -> None:
        attribute(node, name).i = item

    return change


def _inputs(*names: str) -> Change:
    def change(node: onnx.NodeProto) -> None:
        node.input[:] = names

    return change


def _half(node: onnx.NodeProto) -> None:
    tensor = attribute(node, "value").t
    tensor.raw_data = tensor.raw_data[: len(tensor.raw_data) // 2]


def _untyped(node: onnx.NodeProto) -> None:
    attribute(node, "value").t.data_type = TensorProto.UNDEFINED


DAMAGED_NODES: dict[str, tuple[str, Change, str]] = {
    "a Concat without axis": ("Concat", _without("axis"), "lacks an attribute that its operator needs; wanted 'axis'"),
    "an axis of another type": ("Concat", _typed("axis", 1), "'axis' has no type, or another"),
    "an attribute of no type": ("Concat", _typed("axis", 0), "'axis' has no type, or another"),
    "an axis beyond the rank": ("Concat", _int("axis", 9), "axis lies outside its operand's rank; found 9"),
    "a perm out of range": ("Transpose", _ints("perm", 0, 9), "perm is no order of its operand's axes"),
    "a perm with an axis twice": ("Transpose", _ints("perm", 0, 0), "perm is no order of its operand's axes"),
    "a perm of another rank": ("Transpose", _ints("perm", 0, 1, 2), "perm is no order of its operand's axes"),
    "axes of a scalar": ("Squeeze", _inputs("scalar", "axes"), "axes lie outside its operand's rank"),
    "too many inputs": ("Transpose", _inputs("x", "x", "x"), "another number of inputs than its operator; found 3"),
    "too few inputs": ("Gather", _inputs("x"), "another number of inputs than its operator; found 1"),
    "a Cast to no element type": ("Cast", _int("to", -7), "attribute 'to' numbers no element type; found -7"),
    "a Cast to nothing": ("Cast", _int("to", 0), "attribute 'to' numbers no element type; found 0"),
    "a constant of half its bytes": (
        "Constant",
        _half,
        "attribute 'value': holds another size",
    ),
    "a constant of no type": ("Constant", _untyped, "attribute 'value': has a type of no fixed size"),
    "an input left out": ("Gather", _inputs("", "one"), "leaves out an input that its operator needs"),
}


def _nodes() -> onnx.ModelProto:
    """One node of each operator that is damaged here."""
    nodes = [
        helper.make_node("Concat", ["x", "x"], ["c"], "join", axis=0),
        helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[1, 0]),
        helper.make_node("Squeeze", ["row", "axes"], ["q"], "drop"),
        helper.make_node("Gather", ["x", "one"], ["g"], "take"),
        helper.make_node("Cast", ["x"], ["n"], "round", to=TensorProto.INT64),
        helper.make_node("Constant", [], ["k"], "hold", value=onnx.numpy_helper.from_array(np.arange(2.0))),
    ]
    ports = {"x": [2, 3], "row": [1, 3], "scalar": []}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ports.items()]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "ctqgnk"]
    constants = {"one": np.array(1), "axes": np.array([0])}
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [onnx.numpy_helper.from_array(v, k) for k, v in constants.items()]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_the_nodes_are_sound_before_they_are_damaged(tmp_path: Path) -> None:
    onnx.save(_nodes(), tmp_path / "model.onnx")
    assert run(["inspect", str(tmp_path / "model.onnx")]) == 0


@pytest.mark.parametrize("inside", [False, True], ids=["main graph", "a branch"])
@pytest.mark.parametrize("kind", DAMAGED_NODES)
def test_a_node_that_its_operator_cannot_have(
    tmp_path: Path, kind: str, inside: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    op_type, change, said = DAMAGED_NODES[kind]
    model = _nodes()
    node = next(node for node in model.graph.node if node.op_type == op_type)
    change(node)
    if inside:
        branch = helper.make_graph([node], "b", [], [helper.make_tensor_value_info(node.output[0], 1, None)])
        choice = helper.make_node("If", ["yes"], [node.output[0]], "choose", then_branch=branch, else_branch=branch)
        model.graph.node.remove(node)
        model.graph.node.append(choice)
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert run(["run", "single-shot", str(tmp_path / "model.onnx"), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert f"node {node.name!r} ({op_type})" in error


def test_a_loop_without_its_condition_is_sound(tmp_path: Path) -> None:
    """The schema counts two inputs as the fewest, and both may be left out by name."""
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) <int64 n = {3}> { y = Loop (n, "", x)'
        " <body = b (int64 i, bool go, float[2] a) => (bool on, float[2] z) { on = Identity (go) z = Neg (a) }> }"
    )
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    assert run(["run", "simplify", str(tmp_path / "model.onnx"), "-o", str(tmp_path / "out")]) == 0


def test_a_node_of_a_function_is_checked_too(tmp_path: Path) -> None:
    body = helper.make_function(
        "own", "Turn", ["x"], ["y"], [helper.make_node("Concat", ["x", "x"], ["y"], "join")], []
    )
    body.opset_import.append(helper.make_opsetid("", 18))
    model = _calling([body], "Turn")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"node 'join'.*lacks an attribute"):
        Program.load(tmp_path / "m.onnx")


def _calling(functions: list[onnx.FunctionProto], name: str) -> onnx.ModelProto:
    ports = [helper.make_tensor_value_info(port, TensorProto.FLOAT, [2]) for port in "xy"]
    graph = helper.make_graph([helper.make_node(name, ["x"], ["y"], "call", domain="own")], "g", ports[:1], ports[1:])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=9)


def _doubling(depth: int) -> onnx.ModelProto:
    """Functions that each call the one before twice: 2**depth nodes when all calls are written out."""
    functions = []
    for level in range(depth):
        name = f"f{level - 1}" if level else "Neg"
        domain = "own" if level else ""
        nodes = [helper.make_node(name, [a], [b], domain=domain) for a, b in (("x", "h"), ("h", "y"))]
        imports = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
        functions.append(helper.make_function("own", f"f{level}", ["x"], ["y"], nodes, imports))
    return _calling(functions, f"f{depth - 1}")


def test_calls_are_counted_before_they_are_written_out(tmp_path: Path) -> None:
    depth = MAX_INLINED.bit_length()
    (tmp_path / "m.onnx").write_bytes(_doubling(depth).SerializeToString())
    with pytest.raises(InputError, match="stand for too many nodes"):
        Program.load(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").write_bytes(_doubling(5).SerializeToString())
    assert run(["run", "ir-inline", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "out")]) == 0


def test_a_function_that_calls_itself_is_refused(tmp_path: Path) -> None:
    imports = [helper.make_opsetid("own", 1)]
    node = helper.make_node("f0", ["x"], ["y"], domain="own")
    model = _calling([helper.make_function("own", "f0", ["x"], ["y"], [node], imports)], "f0")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="'f0': calls itself"):
        Program.load(tmp_path / "m.onnx")


# dimensions -----------------------------------------------------------------------------------------------------------


def _sum(letter: str, count: int) -> str:
    return "(" + "+".join(f"{letter}{i}" for i in range(count)) + ")"


def test_products_of_sums_are_bounded() -> None:
    small, large = 8, MAX_TERMS // 8 + 1
    assert len(parse(f"{_sum('a', small)}*{_sum('b', MAX_TERMS // small)}").terms) == MAX_TERMS  # type: ignore[union-attr]
    text = f"{_sum('a', small)}*{_sum('b', large)}"
    assert parse(text) == symbol(text), "one term more is one opaque symbol"
    with pytest.raises(DimensionTooLarge, match="a dimension's expression is too large; found a product of 8 and 9"):
        _ = parse(_sum("a", small)) * parse(_sum("b", large))
    many = "*".join(["(a+1)"] * 40)
    assert parse(many) == symbol(many)


def test_powers_by_substitution_are_bounded() -> None:
    power = parse("*".join(["a"] * 17))
    assert isinstance(power, Expr)
    value: object = power
    with pytest.raises(DimensionTooLarge, match="a product of"):
        for _ in range(5):
            value = value * value  # type: ignore[operator]


@pytest.mark.parametrize("text", ["past-len + seq-len", "past-len+seq-len", "seq-len + past-len"])
def test_a_hyphen_between_letters_belongs_to_the_name(text: str) -> None:
    assert parse(text) == symbol("past-len") + symbol("seq-len")
    assert parse(str(parse(text))) == parse(text)


def test_other_hyphens_subtract() -> None:
    assert parse("past - seq") == symbol("past") - symbol("seq")
    assert parse("seq-1") == symbol("seq") - 1
    assert parse("-1") == symbol("-1"), "no size: some exporters write it for an unknown dimension"


def _respelled(model: ir.Model, names: dict[str, str]) -> ir.Model:
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape([d if isinstance(d, int) else _spell(str(d), names) for d in value.shape or ()])
    return model


def _spell(text: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return text


HYPHENS = {"s10": "batch-size", "s43": "batch-size", "s70": "seq-len", "s15": "past-len", "s53": "past-len + seq-len"}


@pytest.mark.parametrize("mark", ["-", ".", "_"])
def test_a_graph_with_such_names_is_cloned(tmp_path: Path, mark: str) -> None:
    model = _respelled(append_dynamo(), {old: new.replace("-", mark) for old, new in HYPHENS.items()})
    ir.save(model, tmp_path / "model.onnx")
    assert (
        run(["run", "clone-decode{k=0,2 prefill=16 ctx=64}", str(tmp_path / "model.onnx"), "-o", str(tmp_path / "out")])
        == 0
    )
    assert run(["verify", str(tmp_path / "model.onnx"), str(tmp_path / "out")]) == 0
    assert _symbols(tmp_path / "out") == set()


def _symbols(folder: Path) -> set[str]:
    """What is no number in the types of inputs and outputs of saved graphs."""
    graphs = [onnx.load(path, load_external_data=False).graph for path in folder.glob("*.onnx")]
    return {
        d.dim_param for g in graphs for v in (*g.input, *g.output) for d in v.type.tensor_type.shape.dim if d.dim_param
    }


@pytest.mark.parametrize("fold", ["false", "true"])
def test_numbers_in_text_are_numbers_in_static_clones(tmp_path: Path, fold: str) -> None:
    model = append_dynamo()
    for value in model.graph.inputs:
        value.shape = ir.Shape([str(d) if value.name and "past" in value.name else d for d in value.shape or ()])
    ir.save(model, tmp_path / "model.onnx")
    assert "2" in _symbols(tmp_path)
    pipeline = f"clone-decode{{k=0,2 prefill=16 ctx=64 fold={fold}}}"
    assert run(["run", pipeline, str(tmp_path / "model.onnx"), "-o", str(tmp_path / "out")]) == 0
    assert _symbols(tmp_path / "out") == set()


# tensors that constants describe --------------------------------------------------------------------------------------


def _described(length: int) -> ir.Model:
    """``length`` integers out of one number, and a use of them."""
    text = f"""
    <ir_version: 9, opset_import: ["" : 18]>
    g (float[n] x) => (float[n] y, int64[m] z) {{
      size = Constant <value = int64[1] {{{length}}}> ()
      z = ConstantOfShape <value = int64[1] {{1}}> (size)
      y = Neg (x)
    }}
    """
    return ir.from_onnx_text(text)


def test_described_tensors_are_counted() -> None:
    for length, small in ((MAX_SPREAD, True), (MAX_SPREAD + 1, False)):
        model = _described(length)
        assert is_spread_small(model, functools.partial(propagate, model)) == small


def test_a_described_tensor_is_not_built(tmp_path: Path) -> None:
    ir.save(_described(MAX_SPREAD + 1), tmp_path / "model.onnx")
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert run(["run", "simplify", str(tmp_path / "model.onnx"), "-o", str(tmp_path / "out")]) == 0
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 300
    assert time.process_time() - began < 20  # far above what it takes; what would not end takes minutes


# scales ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["inf", "0", "nan", "-1"])
def test_scales_that_are_none_are_refused_by_name(
    tmp_path: Path, scale: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """<ir_version: 9, opset_import: ["" : 18]> g (float[2] x) => (float[2] y) {"""
    pairs = """
        q = QuantizeLinear (x, scale, zero)
        d = DequantizeLinear (q, scale, zero)
        y = Neg (d)
    }"""
    quantized = onnx.parser.parse_model(text + pairs)
    constants = {"scale": np.array(float(scale), np.float32), "zero": np.array(0, np.uint8)}
    quantized.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in constants.items())
    onnx.save(quantized, tmp_path / "quantized.onnx")
    onnx.save(onnx.parser.parse_model(f"{text} y = Neg (x) }}"), tmp_path / "model.onnx")
    file = tmp_path / "quantized.onnx"
    out = ["-o", str(tmp_path / "out")]
    assert run(["run", f"load-encodings{{file={file}}}", str(tmp_path / "model.onnx"), *out]) == 2
    error = capsys.readouterr().err
    assert "quantized.onnx: tensor 'x' has no valid encoding" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ports", ["input", "output"])
def test_a_branch_without_its_nodes_ports_is_refused(tmp_path: Path, ports: str) -> None:
    model = ir.serde.serialize_model(ir.from_onnx_text(BRANCH))
    node = next(node for node in model.graph.node if node.op_type == "If")
    branch = node.attribute[0].g
    if ports == "output":
        del branch.output[:]
    else:
        branch.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InputError, match="has not its node's ports"):
        Program.load(tmp_path / "model.onnx")


def test_types_without_an_element_type(tmp_path: Path) -> None:
    model = _nodes()
    model.graph.value_info.append(helper.make_tensor_value_info("inner", TensorProto.UNDEFINED, [2, 3]))
    model.graph.node.append(helper.make_node("Relu", ["x"], ["inner"]))
    onnx.save(model, tmp_path / "model.onnx")
    program = Program.load(tmp_path / "model.onnx")
    graph = next(iter(program.graphs.values())).graph
    assert next(node for node in graph if node.op_type == "Relu").outputs[0].type is None
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UNDEFINED
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InputError, match="graph input 'x': has a type without an element type"):
        Program.load(tmp_path / "model.onnx")


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.FLOAT16, TensorProto.COMPLEX64, TensorProto.BOOL])
def test_typed_fields_are_read_as_they_are_written(kind: int) -> None:
    tensor = helper.make_tensor("t", kind, [3], [1, 0, 1])
    check_embedded(tensor)
    tensor.dims[0] = 5
    with pytest.raises(InputError, match="holds another size"):
        check_embedded(tensor)


def test_an_error_is_bounded_and_keeps_both_ends() -> None:
    said = str(InputError("lacks a thing", where=f"node {'n' * 5000!r}", hint="Export it again."))
    assert len(said) < 5000
    assert said.startswith("node 'nnn")
    assert said.endswith("lacks a thing. Export it again.")
    assert len(str(InputError(" ".join(["word"] * 5000)))) <= MAX_LINE


UNARY_HEAD = '<ir_version: 10, opset_import: ["" : 18]> g (float[2] x) => (float[2] y) '


@pytest.mark.parametrize("field", ["name", "op_type", "output"])
def test_a_name_that_is_no_text_is_refused(tmp_path: Path, field: str) -> None:
    body = "{ [zzzz] yyyy = ABCD (x) y = Neg (yyyy) }"
    data = onnx.parser.parse_model(UNARY_HEAD + body).SerializeToString()
    spelled = {"name": b"zzzz", "op_type": b"ABCD", "output": b"yyyy"}[field]
    path = tmp_path / "model.onnx"
    path.write_bytes(data.replace(spelled, b"\xff\xfe\xff\xfe"))
    with pytest.raises(InputError, match="holds a name that is no text"):
        Program.load(path)


def test_a_node_without_outputs_is_refused(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(UNARY_HEAD + "{ y = Neg (x) }")
    model.graph.node.add(op_type="Abs", input=["x"])
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InputError, match="gives nothing"):
        Program.load(tmp_path / "model.onnx")
