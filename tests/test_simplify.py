"""simplify: what each case becomes, what stays, names, metadata, and random shape arithmetic run on onnxruntime."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

from onnx_llm_passes.ir.core.errors import PassRefused
from onnx_llm_passes.passes.simplify import Simplify

from .shape_arithmetic import arithmetic
from .simplify_cases import GONE, KEPT

HEADER = '<ir_version: 10, opset_import: ["" : 18, "local" : 1]>'


def parsed(body: str, functions: str = "") -> ir.Model:
    """A graph from ONNX text."""
    return ir.from_onnx_text(f"{HEADER} g {body}\n{functions}")


def simplified(body: str, functions: str = "") -> ir.Model:
    """A graph from ONNX text, simplified; a second run must leave it alone, and the checker must accept it."""
    model = parsed(body, functions)
    Simplify().call(model)
    assert not Simplify().call(model).modified
    onnx.checker.check_model(ir.to_proto(model))
    return model


def ops(model: ir.Model) -> list[str]:
    """The operations of the main graph, in order."""
    return [node.op_type for node in model.graph]


def constant(model: ir.Model, name: str) -> list[object]:
    """The content of an initializer."""
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy().ravel().tolist()


@pytest.mark.parametrize(("body", "expected"), KEPT.values(), ids=KEPT)
def test_kept(body: str, expected: list[str]) -> None:
    """What is not certain, not exact, or somebody's interface stays."""
    assert ops(simplified(body)) == expected


@pytest.mark.parametrize(("body", "expected"), GONE.values(), ids=GONE)
def test_gone(body: str, expected: list[str]) -> None:
    """What gives back its input, or is known, goes; the graph computes what it did."""
    model = simplified(body)
    assert ops(model) == expected
    assert [value.name for value in model.graph.outputs] == [value.name for value in parsed(body).graph.outputs]
    for sizes in ({"n": 2, "m": 3, "k": 4}, {"n": 1, "m": 1, "k": 1}, {"n": 0, "m": 2, "k": 3}):
        same_results(parsed(body), model, sizes)


def test_reshape_target_becomes_constant() -> None:
    """Lengths that are copied become 0, one that moved becomes -1 where nothing beside it can be 0."""
    model = simplified(
        """(float[b,s,64] x) => (float[b,4,s,16] y) {
            n = Shape(x) i = Constant<value_int = 0>() j = Constant<value_int = 1>() z = Constant<value_ints = [0]>()
            b0 = Gather(n, i) s0 = Gather(n, j) b1 = Unsqueeze(b0, z) s1 = Unsqueeze(s0, z)
            h = Constant<value_ints = [-1, 16]>() t = Concat<axis = 0>(b1, s1, h) r = Reshape(x, t)
            q = Transpose<perm = [0, 2, 1, 3]>(r) f = Constant<value_ints = [2, 2]>() d = Constant<value_ints = [16]>()
            u = Concat<axis = 0>(b1, f, s1, d) w = Reshape(q, u)
            g = Constant<value_ints = [4]>() v = Concat<axis = 0>(b1, g, s1, d) y = Reshape(w, v) }"""
    )
    targets = [constant(model, str(node.inputs[1].name)) for node in model.graph if node.op_type == "Reshape"]  # type: ignore[union-attr]
    assert ops(model) == ["Reshape", "Transpose"]
    assert targets == [[0, 0, 4, 16]]


def test_expand_target_keeps_with_ones() -> None:
    """Expand is told 1 where it keeps a symbol, so that nothing has to be computed."""
    model = simplified(
        """(float[b,2,1,s,8] x) => (float[b,2,3,s,8] y) {
            n = Shape(x) i = Constant<value_ints = [0, 1]>() k = Constant<value_ints = [3, 4]>()
            c = Constant<value_ints = [3]>() a = Gather(n, i) d = Gather(n, k) t = Concat<axis = 0>(a, c, d)
            y = Expand(x, t) }"""
    )
    assert ops(model) == ["Expand"]
    assert constant(model, str(model.graph.node(0).inputs[1].name)) == [1, 1, 3, 1, 1]  # type: ignore[union-attr]


def test_names_survive() -> None:
    """A folded value's constant takes its name; the nodes and values that stay keep theirs."""
    model = simplified(
        """(float[b,6] x) => (float[b,6] y) {
            n = Shape<start = 1>(x) two = Constant<value_int = 2>() half = Div(n, two) f = Cast<to = 1>(half)
            [the_mul] m = Mul(x, f) [the_relu] y = Relu(m) }"""
    )
    assert [(node.name, [v.name for v in node.inputs if v]) for node in model.graph] == [
        ("the_mul", ["x", "f"]),
        ("the_relu", ["m"]),
    ]
    assert constant(model, "f") == [3.0]
    assert model.graph.initializers["f"].metadata_props["pass"] == "simplify"


def test_symbolic_content_is_computed_once() -> None:
    """Two ways to the same length become one."""
    model = simplified(
        """(float[b,s] x, float[b,s] z) => (int64 y) {
            n = Shape(x) m = Shape(z) i = Constant<value_int = 1>() a = Gather(n, i) c = Gather(m, i) y = Mul(a, c) }"""
    )
    assert Counter(ops(model)) == {"Shape": 1, "Gather": 1, "Mul": 1}


def test_declared_inner_shapes_are_not_believed() -> None:
    """A value info that lies changes nothing: only graph inputs are the contract."""
    model = parsed("(float[n] x) => (int64[1] y) <float[4] a> { a = Relu(x) t = Shape(a) y = Neg(t) }")
    Simplify().call(model)
    assert ops(model)[-2:] == ["Shape", "Neg"]


IF = """(float[n,2] x, bool run) => (float[n,2] y) {{
    {condition} y = If(c) <
        then_branch = t () => (float[n,2] u) {{ w = Relu(x) u = Neg(w) }},
        else_branch = f () => (float[n,2] v) {{ w = Exp(x) v = Neg(w) }}> }}"""


def test_a_decided_branch_is_inlined() -> None:
    """The branch taken moves out; the output keeps its name."""
    model = simplified(IF.format(condition="s = Shape<start = 1>(x) k = Constant<value_ints = [3]>() c = Less(s, k)"))
    assert ops(model) == ["Relu", "Neg"]
    assert model.graph.outputs[0].name == "y"


def test_two_decided_branches_share_no_names() -> None:
    """Names that two bodies shared are told apart when both move into one scope."""
    body = """(float[n,2] x) => (float[n,2] y) {
        c = Constant<value = bool {1}>() d = Constant<value = bool {0}>()
        a = If(c) < then_branch = t () => (float[n,2] u) { w = Relu(x) u = Neg(w) },
                    else_branch = f () => (float[n,2] u) { w = Exp(x) u = Neg(w) }>
        y = If(d) < then_branch = t () => (float[n,2] u) { w = Relu(a) u = Neg(w) },
                    else_branch = f () => (float[n,2] u) { w = Exp(a) u = Neg(w) }> }"""
    model = simplified(body)
    assert ops(model) == ["Relu", "Neg", "Exp", "Neg"]
    same_results(parsed(body), model, {"n": 3})


def test_an_open_branch_stays_and_is_folded_inside() -> None:
    """Undecided control flow stays; inside, captured values count as used and outer constants are shared."""
    body = """(float[n,2] x, bool run) => (float[n,2] y) {
        o = Constant<value = float {1.0}>() h = Exp(x)
        y = If(run) <
            then_branch = t () => (float[n,2] u) { a = Mul(h, o) b = Identity(a) u = Relu(b) },
            else_branch = f () => (float[n,2] v) { s = Shape<start = 1>(h) k = Cast<to = 1>(s) v = Mul(h, k) }> }"""
    model = simplified(body)
    assert ops(model) == ["Exp", "If"]
    assert sorted(node.op_type for graph in model.graph.subgraphs() for node in graph) == ["Mul", "Relu"]
    for flag in (True, False):
        same_results(parsed(body), model, {"n": 3}, run=np.array(flag))


def test_a_loop_body_keeps_what_changes() -> None:
    """Sizes of loop-carried values are not taken for constants."""
    body = """(float[n] x, int64 count, bool go) => (int64[1] y) {
        y0 = Shape(x) y, last = Loop(count, go, y0, x) <body = b (int64 i, bool c, int64[1] s, float[k] g)
            => (bool d, int64[1] t, float[m] e) { d = Identity(c) e = Concat<axis = 0>(g, g) t = Shape(e) }> }"""
    model = simplified(body)
    for count in (0, 1, 3):
        same_results(parsed(body), model, {"n": 2}, count=np.array(count, np.int64), go=np.array(True))


def test_unused_functions_and_domains_go() -> None:
    """Functions that nothing reaches go, with their domain; used ones stay as they were."""
    functions = """<domain: "local", opset_import: ["" : 18]> used (x) => (y) { a = Identity(x) y = Relu(a) }
        <domain: "local", opset_import: ["" : 18]> unused (x) => (y) { y = Relu(x) }"""
    model = simplified("(float[n] x) => (float[n] y) { y = local.used(x) }", functions)
    assert [(name, len(function)) for (_, name, _), function in model.functions.items()] == [("used", 2)]
    model = simplified("(float[n] x) => (float[n] y) { y = Relu(x) }", functions)
    assert (model.functions, model.opset_imports) == ({}, {"": 18})


def test_inputs_and_weights_stay() -> None:
    """Unused graph inputs stay, optional ones optional; equal floats keep two names, equal integers share one."""
    model = simplified(
        """(float[n,8] x, float[n] idle, float[1] free = {1}) => (float[n,8] y)
        <float[8] v = {1,2,3,4,5,6,7,8}, float[8] w = {1,2,3,4,5,6,7,8}, int64[1] i = {1}, int64[1] j = {1}>
        { a = Mul(x, v) b = Mul(a, w) s = ReduceMax(b, i) t = ReduceMin(b, j) u = Sub(s, t)
          y = Add(b, u) }"""
    )
    assert [value.name for value in model.graph.inputs] == ["x", "idle", "free"]
    assert sorted(model.graph.initializers) == ["free", "i", "v", "w"]


def test_weights_are_not_read(tmp_path: Path) -> None:
    """An external weight stays a reference: its file need not even exist."""
    model = parsed("(float[n,512] x) => (float[n,512] y) { t = Shape(x) a = Reshape(x, t) y = Add(a, x) }")
    weight = ir.ExternalTensor(
        "gone.data", 0, 2048, ir.DataType.FLOAT, shape=ir.Shape([512]), name="w", base_dir=str(tmp_path)
    )
    value = ir.Value(name="w", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([512]), const_value=weight)
    model.graph.register_initializer(value)
    model.graph.node(2).replace_input_with(1, value)
    Simplify().call(model)
    assert ops(model) == ["Add"]
    assert model.graph.initializers["w"].const_value is weight


def test_it_says_what_it_did_and_stops() -> None:
    """Counts are given; a bound on rounds that is too low refuses with the reason."""
    body = "(float[n] x) => (float[n] y) { a = Identity(x) y = Relu(a) }"
    assert Simplify().call(parsed(body)).counts == {"identities": 1, "nodes": 1, "unused": 1}
    with pytest.raises(PassRefused, match="did not converge in 1 rounds"):
        Simplify(max_rounds=1).call(parsed(body))


def session(model: ir.Model) -> onnxruntime.InferenceSession:
    """A session that runs the graph as it is written."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def same_results(before: ir.Model, after: ir.Model, sizes: dict[str, int], **given_inputs: np.ndarray) -> None:
    """Both graphs give the same bits for random inputs; what the first rejects is no test."""
    random = np.random.default_rng(0)
    feeds: dict[str, np.ndarray] = {}
    for value in before.graph.inputs:
        assert value.shape is not None and value.dtype is not None and value.name
        shape = [dim if isinstance(dim, int) else sizes[str(dim)] for dim in value.shape]
        feeds[value.name] = given_inputs.get(value.name, random.integers(0, 9, shape).astype(value.dtype.numpy()))
    for a, b in zip(session(before).run(None, feeds), session(after).run(None, feeds), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(arithmetic())
def test_random_shape_arithmetic(proto: onnx.ModelProto) -> None:
    """Whatever the graph accepted before, it gives the same bits for afterwards: lengths 0, 1 and more."""
    before, after = ir.from_proto(proto), ir.from_proto(proto)
    Simplify().call(after)
    assert not Simplify().call(after).modified
    old, new = session(before), session(after)
    for a, b in ((1, 1), (2, 3), (3, 3), (1, 4), (0, 2), (2, 0)):
        feeds = {"x": np.arange(a * b * 3, dtype=np.float32).reshape(a, b, 3), "y": np.ones((b, 4), np.float32)}
        try:
            expected = old.run(None, feeds)
        except (Fail, InvalidArgument, RuntimeException):
            continue  # sizes that the graph itself rejects
        for left, right in zip(expected, new.run(None, feeds), strict=True):
            np.testing.assert_array_equal(left, right, strict=True)
