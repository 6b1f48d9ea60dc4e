"""Symbolic propagation: shapes of every operation, contents of shape arithmetic, trust, bindings, hostile input."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from onnx_llm_passes.ir.shapes.infer import Facts, Trust, algebra, propagate
from onnx_llm_passes.ir.symbolic import dims

HEADER = '<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1, "local" : 1]>'


def swept(body: str, *, functions: str = "", opset: int = 18, **options: object) -> tuple[ir.Model, Facts]:
    """A graph from ONNX text, and its facts."""
    model = ir.from_onnx_text(f"{HEADER.format(opset=opset)} g {body}\n{functions}")
    return model, propagate(model, **options)  # type: ignore[arg-type]


def value(model: ir.Model, name: str) -> ir.Value:
    """The value of a name in the main graph."""
    return next(v for node in model.graph for v in node.outputs if v.name == name)


def shown(shape: tuple[object, ...] | None) -> str | None:
    """A shape as text, fresh symbols as ``?``."""
    return None if shape is None else ",".join("?" if str(dim).startswith("?") else str(dim) for dim in shape)


# inputs, operation, expected shape of y
SHAPES = [
    ("float[b,s,8] x", "y = Relu(x)", "b,s,8"),
    ("float[b,s,8] x, float[1,s,1] z", "y = Add(x, z)", "b,s,8"),
    ("float[b,4] x, float[c,4] z", "y = Add(x, z)", "?,4"),
    ("float[b,4] x, float[7,1] z", "y = Add(x, z)", "7,4"),
    ("float[b,s,8] x, float[8,16] w", "y = MatMul(x, w)", "b,s,16"),
    ("float[b,2,s,8] x, float[b,2,8,t] w", "y = MatMul(x, w)", "b,2,s,t"),
    ("float[8] x, float[b,8,3] w", "y = MatMul(x, w)", "b,3"),
    ("float[b,8] x, float[16,8] w", "y = Gemm<transB = 1>(x, w)", "b,16"),
    ("float[b,s,8] x", "y = Transpose<perm = [0, 2, 1]>(x)", "b,8,s"),
    ("float[b,s] x", "y = Transpose(x)", "s,b"),
    ("float[b,s,8] x", "c = Constant<value = int64[4] {0, 0, 2, -1}>() y = Reshape(x, c)", "b,s,2,4"),
    ("float[b,s,8] x", "c = Constant<value = int64[2] {-1, 8}>() y = Reshape(x, c)", "b*s,8"),
    ("float[b,s,8] x, int64[3] t", "y = Reshape(x, t)", "?,?,?"),
    ("float[b,s,8] x", "y = Flatten<axis = 2>(x)", "b*s,8"),
    ("float[b,1,8] x", "c = Constant<value_ints = [1]>() y = Squeeze(x, c)", "b,8"),
    ("float[b,1,8] x", "y = Squeeze(x)", None),
    ("float[b,8] x", "c = Constant<value_ints = [0, -1]>() y = Unsqueeze(x, c)", "1,b,8,1"),
    ("float[p,8] x, float[s,8] z", "y = Concat<axis = 0>(x, z)", "p + s,8"),
    ("float[b,9] x", "y, z = Split<axis = 1, num_outputs = 2>(x)", "b,5"),
    ("float[b,9] x", "c = Constant<value_ints = [2, 7]>() z, y = Split<axis = 1>(x, c)", "b,7"),
    ("float[b,s] x", "c = Constant<value_ints = [2, 3]>() y = Tile(x, c)", "2*b,3*s"),
    ("float[b,s] x", "c = Constant<value_ints = [0, 1, 0, 2]>() y = Pad(x, c)", "b,s + 3"),
    ("float[b,1] x", "c = Constant<value_ints = [3, 1, 5]>() y = Expand(x, c)", "3,b,5"),
    ("float[b,s,8] x", "c = Constant<value_ints = [1]>() y = ReduceSum(x, c)", "b,1,8"),
    ("float[b,s,8] x", "c = Constant<value_ints = [-1]>() y = ReduceMean<keepdims = 0>(x, c)", "b,s"),
    ("float[b,s,8] x", "y = ReduceMax(x)", "1,1,1"),
    ("float[b,s,8] x", "y = ArgMax<axis = 1, keepdims = 0>(x)", "b,8"),
    ("float[b,s,8] x", "k = Constant<value_ints = [5]>() y, i = TopK(x, k)", "b,s,5"),
    ("float[100,8] x, int64[b,s] i", "y = Gather(x, i)", "b,s,8"),
    ("float[b,s,8] x, int64[b,s,3] i", "y = GatherElements<axis = 2>(x, i)", "b,s,3"),
    ("float[b,s,8] x, int64[n,2] i", "y = GatherND(x, i)", "n,8"),
    (
        "int64[b,s] x",
        "d = Constant<value_int = 10>() v = Constant<value_ints = [0, 1]>() y = OneHot(x, d, v)",
        "b,s,10",
    ),
    ("float[b,s] x", "y = NonZero(x)", "2,?"),
    ("float[b,s,8] x, float[8] w", "y = LayerNormalization(x, w)", "b,s,8"),
    ("float[b,3,32,32] x, float[8,3,3,3] w", "y = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, w)", "b,8,16,16"),
    ("float[b,3,n] x, float[8,3,3] w", 'y = Conv<auto_pad = "SAME_UPPER", strides = [2]>(x, w)', "b,8,(n + 1) // 2"),
    ("float[b,3,32] x", "y = MaxPool<kernel_shape = [2], strides = [2]>(x)", "b,3,16"),
    ("float[b,h,s,d] x, float[b,h,t,d] z", 'y = Einsum<equation = "bhsd,bhtd->bhst">(x, z)', "b,h,s,t"),
    ("float[b,s,8] x, float[n] z", "y = UnheardOf(x, z)", None),
    ("float[b,s,64] x", "y = com.microsoft.MatMulNBits<K = 64, N = 32, bits = 4, block_size = 32>(x)", "b,s,32"),
    ("float[b,s,64] x, float[b,s,64] k", "y, m, v, r = com.microsoft.SkipSimplifiedLayerNormalization(x, k)", "b,s,64"),
    ("float[b,s,64] q, float[b,t,64] x", "y = com.microsoft.MultiHeadAttention<num_heads = 4>(q, x, x)", "b,s,64"),
    (
        "float[b,4,s,16] x, float[b,2,s,16] k, float[b,2,p,16] pk",
        "o, y = Attention(x, k, k, , pk, pk)",
        "b,2,p + s,16",
    ),
]


@pytest.mark.parametrize(("inputs", "operation", "expected"), SHAPES, ids=[case[1][:60] for case in SHAPES])
def test_shape(inputs: str, operation: str, expected: str | None) -> None:
    """Each operation's shape follows from its inputs' symbols."""
    model, facts = swept(f"({inputs}) => (float[d] y) {{ {operation} }}", opset=23, trust=Trust.INPUTS)
    assert shown(facts.shape(value(model, "y"))) == expected


# operation over x float[b,s,8], expected content of y (b, s >= 0 are not known)
CONTENTS = [
    ("y = Shape(x)", "b,s,8"),
    ("y = Shape<start = 1, end = 2>(x)", "s"),
    ("y = Size(x)", "8*b*s"),
    ("n = Shape(x) i = Constant<value_int = -1>() y = Gather(n, i)", "8"),
    ("n = Shape(x) y = Concat<axis = 0>(n, n)", "b,s,8,b,s,8"),
    ("n = Shape(x) y = Add(n, n)", "2*b,2*s,16"),
    ("n = Shape(x) t = Constant<value_int = 2>() y = Div(n, t)", "b // 2,s // 2,4"),
    ("n = Shape(x) y = Div(n, n)", "1,1,1"),
    ("n = Shape(x) t = Constant<value_int = -3>() m = Add(n, t) u = Constant<value_int = 2>() y = Div(m, u)", None),
    ("n = Shape(x) t = Constant<value_int = 8>() y = Mod(n, t)", "b % 8,s % 8,0"),
    ("n = Shape(x) y = Neg(n)", "-b,-s,-8"),
    ("n = Shape(x) y = ReduceProd<keepdims = 0>(n)", "8*b*s"),
    ("n = Shape(x) t = Constant<value_int = -1>() y = Equal(n, t)", "False,False,False"),
    ("n = Shape(x) t = Constant<value_int = 0>() y = Greater(n, t)", None),  # a length may be 0
    ("n = Shape(x) t = Constant<value_int = 0>() y = GreaterOrEqual(n, t)", "True,True,True"),
    ("n = Shape(x) t = Constant<value_int = 8>() y = Equal(n, t)", None),
    ("n = Shape(x) y = Equal(n, n)", "True,True,True"),
    ("n = Shape(x) t = Constant<value_int = -1>() c = Equal(n, t) y = Where(c, t, n)", "b,s,8"),
    ("n = Shape(x) t = Constant<value_int = 0>() c = Less(n, t) y = Not(c)", "True,True,True"),
    ("n = Shape(x) f = Cast<to = 1>(n) y = Cast<to = 7>(f)", "b,s,8"),
    ("n = Shape(x) f = Cast<to = 10>(n) y = Cast<to = 7>(f)", None),  # half cannot hold every length
    ("n = Shape(x) y = Cast<to = 9>(n)", None),
    ("n = Shape(x) f = Cast<to = 1>(n) y = CastLike(f, n)", "b,s,8"),
    ("n = Shape(x) y = CastLike(n, x)", "b,s,8"),
    ("n = Shape(x) a = Constant<value_ints = [1]>() e = Constant<value_ints = [3]>() y = Slice(n, a, e)", "s,8"),
    ("n = Shape(x) a = Constant<value_ints = [0]>() y = Unsqueeze(n, a)", "b,s,8"),
    ("n = Shape(x) u, y, w = Split<num_outputs = 3>(n)", "s"),
    ("n = Shape(x) t = Constant<value_ints = [2]>() y = Tile(n, t)", "b,s,8,b,s,8"),
    ("n = Constant<value_ints = [2, 2]>() y = ConstantOfShape<value = int64[1] {7}>(n)", "7,7,7,7"),
    (
        "a = Constant<value_int = 7>() b = Constant<value_int = 0>() d = Constant<value_int = -3>() y = Range(a, b, d)",
        "7,4,1",
    ),
    ("a = Constant<value_int = -7>() b = Constant<value_int = 2>() y = Div(a, b)", "-3"),
    ("a = Constant<value_int = -7>() b = Constant<value_int = 2>() y = Mod(a, b)", "1"),
    ("a = Constant<value = int64 {9223372036854775807}>() y = Add(a, a)", None),  # would overflow
    ("a = Constant<value = float {-0.0}>() y = Identity(a)", None),  # no integer knows the negative zero
    ("c = Constant<value_ints = [0, 5, 0, 7]>() y = NonZero(c)", "1,3"),
    ("n = Shape(x) y = NonZero(n)", None),
    ("n = Shape(x) y = Max(n, n)", "b,s,8"),
    ("n = Shape(x) t = Constant<value_int = 0>() y = Max(n, t)", "b,s,8"),
    ("n = Shape(x) t = Constant<value_int = 5>() y = Min(n, t)", "min(b, 5),min(s, 5),5"),
]


@pytest.mark.parametrize(("operation", "expected"), CONTENTS, ids=[case[0][:70] for case in CONTENTS])
def test_content(operation: str, expected: str | None) -> None:
    """Shape arithmetic is followed item by item, and decided only where certain."""
    model, facts = swept(f"(float[b,s,8] x) => (int64[d] y) {{ {operation} }}")
    tensor = facts.ints(value(model, "y"))
    assert (None if tensor is None else ",".join(map(str, tensor.items))) == expected


SLICES = [
    ("0", "9223372036854775807", "1", "s"),
    ("0", "-1", "1", "max(s - 1, 0)"),
    ("2", "2147483647", "1", "max(s - min(s, 2), 0)"),
    ("-1", "9223372036854775807", "1", "s - max(s - 1, 0)"),
    ("0", "9223372036854775807", "2", "(s + 1) // 2"),
    ("-1", "-9223372036854775808", "-1", "s"),
]


def test_a_slice_of_as_many_last_rows_as_there_are_takes_all() -> None:
    """``x[-s:]`` of s rows, as relative biases of the queries are cut: exact for s = 0, too."""
    text = "z = Constant<value_ints = [9223372036854775807]>() n = Shape(x) m = Neg(n) y = Slice(x, m, z)"
    model, facts = swept(f"(float[s] x) => (float[d] y) {{ {text} }}", trust=Trust.INPUTS)
    assert str(facts.shape(model.graph.outputs[0])[0]) == "s"


@pytest.mark.parametrize(("start", "end", "step", "expected"), SLICES)
def test_slice_of_a_symbol(start: str, end: str, step: str, expected: str) -> None:
    """Slice lengths stay exact for every value of the symbol."""
    constants = " ".join(
        f"{name} = Constant<value = int64[1] {{{text}}}>()"
        for name, text in zip("abcd", (start, end, "0", step), strict=True)
    )
    model, facts = swept(f"(float[s] x) => (float[d] y) {{ {constants} y = Slice(x, a, b, c, d) }}", trust=Trust.INPUTS)
    shape = facts.shape(value(model, "y"))
    assert shape is not None
    length, wanted = shape[0], dims.parse(expected)
    first, last, stride = int(start), int(end), int(step)
    for size in range(6):
        numbers = range(size)[first : None if stride < 0 else last : stride]
        assert dims.substitute(length, {"s": size}) == dims.substitute(wanted, {"s": size}) == len(numbers)


def test_reshape_takes_the_rest_exactly() -> None:
    """Symbols on both sides of -1 cancel."""
    body = """(float[b,s,64] x) => (float[d] y) {
        n = Shape<end = 2>(x) c = Constant<value_ints = [-1, 16]>() t = Concat<axis = 0>(n, c) y = Reshape(x, t) }"""
    model, facts = swept(body, trust=Trust.INPUTS)
    assert shown(facts.shape(value(model, "y"))) == "b,s,4,16"


def test_binding_makes_everything_concrete() -> None:
    """Symbols at the inputs are replaced, in sums too; what follows is integers."""
    model, _ = swept("(float[b,p] x, float[b,q] z) => (float[b,r] y) { y = Concat<axis = 1>(x, z) }")
    model.graph.inputs[1].shape = ir.Shape(["b", "p + s"])
    model.graph.outputs[0].shape = ir.Shape(["b", "2*p+s"])
    facts = propagate(model, binding={"b": 2, "p": 3, "s": 4})
    assert facts.shape(value(model, "y")) == (2, 10)
    assert facts.clashes == []


def test_a_contradiction_is_recorded() -> None:
    """Two integers for one dimension: the inferred one is kept, the clash says what was declared."""
    model, facts = swept("(float[4] x) => (float[5] y) { y = Relu(x) }")
    assert facts.shape(value(model, "y")) == (4,)
    assert [(clash.value.name, clash.expected, clash.got) for clash in facts.clashes] == [("y", 5, 4)]


BODY = "(float[b,s] x) => (float[b,t] y) <float[2,u0] n> { n = NonZero(x) y = UnheardOf(x) }"


def test_declared_shapes_refine_unless_distrusted() -> None:
    """A declared symbol stands in for a fresh one and for an unknown shape; on demand only inputs are believed."""
    model, facts = swept(BODY)
    assert (shown(facts.shape(value(model, "n"))), shown(facts.shape(value(model, "y")))) == ("2,u0", "b,t")
    model, facts = swept(BODY, trust=Trust.INPUTS)
    assert (shown(facts.shape(value(model, "n"))), facts.shape(value(model, "y"))) == ("2,?", None)


def test_fresh_symbols_differ() -> None:
    """Two data-dependent lengths are never taken for equal, one is equal to itself."""
    body = """(float[b] x, float[b] z) => (int64[1,d] a) {
        a = NonZero(x) c = NonZero(z) e = Neg(a) f = Shape(a) g = Shape(e) h = Equal(f, g) }"""
    model, facts = swept(body, trust=Trust.INPUTS)
    assert facts.shape(value(model, "a")) != facts.shape(value(model, "c"))
    same = facts.ints(value(model, "h"))
    assert same is not None
    assert same.items == (True, True)


def test_a_function_is_swept_at_each_call() -> None:
    """Attributes of the call reach the body; two calls with other shapes have other results."""
    functions = """<domain: "local", opset_import: ["" : 18]>
        turn <p>(x) => (y) { n = Shape(x) r = Reshape(x, n) y = Transpose<perm: ints = @p>(r) }"""
    body = """(float[b,s,8] x) => (float[d] z) {
        y = local.turn<p = [1, 0, 2]>(x) z = local.turn<p = [2, 1, 0]>(y) }"""
    model, facts = swept(body, functions=functions, trust=Trust.INPUTS)
    assert shown(facts.shape(value(model, "y"))) == "s,b,8"
    assert shown(facts.shape(value(model, "z"))) == "8,b,s"


def test_data_dependent_calls_differ() -> None:
    """A function that counts what it finds gives every call a length of its own."""
    functions = '<domain: "local", opset_import: ["" : 18]> count (x) => (y) { y = NonZero(x) }'
    body = "(float[b] x, float[b] z) => (int64[1,d] a) { a = local.count(x) c = local.count(z) }"
    model, facts = swept(body, functions=functions, trust=Trust.INPUTS)
    assert facts.shape(value(model, "a")) != facts.shape(value(model, "c"))


def test_branches_meet() -> None:
    """What both branches of an If agree on is known; outer values are known inside."""
    body = """(bool c, float[b,4] x) => (float[d,e] y) { y = If(c) <
        then_branch = t () => (float[d,e] u) { u = Relu(x) },
        else_branch = f () => (float[d,e] v) { v = Concat<axis = 0>(x, x) }> }"""
    model, facts = swept(body, trust=Trust.INPUTS)
    assert shown(facts.shape(value(model, "y"))) == "?,4"


def test_an_initializer_that_callers_may_override_is_data() -> None:
    """An initializer that is a graph input too has no known content."""
    model = ir.from_onnx_text(
        f"{HEADER.format(opset=18)} g (int64[1] n = {{3}}) => (float[d] y) {{ y = ConstantOfShape(n) }}"
    )
    shape = propagate(model).shape(value(model, "y"))
    assert shown(shape) in ("d", "?")


def test_malformed_nodes_are_unknown() -> None:
    """Axes out of range, missing inputs and zero divisors give no fact and no exception."""
    body = """(float[b,s] x) => (float[d] y) {
        a = Transpose<perm = [0, 7]>(x) c = Concat<axis = 5>(x, x)
        z = Constant<value_int = 0>() n = Size(x) q = Div(n, z) y = Gather<axis = 9>(x, n) }"""
    model, facts = swept(body, trust=Trust.INPUTS)
    assert [facts.shape(value(model, name)) for name in "acy"] == [None, None, None]
    assert facts.ints(value(model, "q")) is None


def test_expressions_stay_bounded() -> None:
    """A graph that squares a sum again and again, or divides for ever, costs no time and gives no fact."""
    nodes = ["n = Size(x)", "m = Size(z)", "v0 = Add(n, m)", "k = Constant<value_int = 3>()", "w0 = Add(n, m)"]
    nodes += [f"v{i + 1} = Mul(v{i}, v{i})" for i in range(40)]
    nodes += [f"w{i + 1} = Div(w{i}, k)" for i in range(200)]
    model, facts = swept(f"(float[b,s] x, float[c,t] z) => (int64 v40) {{ {' '.join(nodes)} }}")
    assert facts.ints(value(model, "v40")) is None
    assert facts.ints(value(model, "w200")) is None


def test_signs() -> None:
    """A symbol may be 0: lower bounds say no more than that."""
    b, s = dims.parse("b"), dims.parse("s")
    assert algebra.lower_bound(dims.parse("2*b + s + 3")) == 3
    assert algebra.lower_bound(dims.parse("b - s")) is None
    assert algebra.lower_bound(dims.parse("max(b - s, 0)")) == 0
    assert algebra.less(b, b + 1) is True
    assert algebra.less(b, s) is None
    assert algebra.equal(b, b + 1) is False


def test_external_data_beyond_a_kilobyte_is_never_read(tmp_path: Path) -> None:
    """An external tensor whose file does not exist has a shape and no content, and nothing fails."""
    tensor = ir.ExternalTensor(
        "missing.data", 0, 8, ir.DataType.INT64, shape=ir.Shape([1]), name="n", base_dir=str(tmp_path)
    )
    model = ir.from_onnx_text(f"{HEADER.format(opset=18)} g (int64[1] x) => (int64[1] y) {{ y = Add(x, x) }}")
    given = ir.Value(name="n", const_value=tensor)
    model.graph.register_initializer(given)
    facts = propagate(model)
    assert facts.shape(given) == (1,)
    assert facts.ints(given) is None


def test_the_text_models_are_valid() -> None:
    """The cases above are real ONNX, not merely what the parser lets through."""
    for inputs, operation, _ in SHAPES:
        if "UnheardOf" not in operation and "com.microsoft" not in operation:
            text = f"{HEADER.format(opset=23)} g ({inputs}) => (float[d] y) {{ {operation} }}"
            onnx.checker.check_model(onnx.parser.parse_model(text))
