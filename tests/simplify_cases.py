"""Small graphs for simplify: what each shows, the graph, and the operations that are left."""

from __future__ import annotations

# what must not fire comes first
KEPT = {
    "negative zero: x + 0.0": (
        "(float[n] x) => (float[n] y) { c = Constant<value = float {0.0}>() y = Add(x, c) }",
        ["Add"],
    ),
    "a vector of ones may be a weight": (
        "(float[n,2] x) => (float[n,2] y) <float[2] w = {1.0, 1.0}> { y = Mul(x, w) }",
        ["Mul"],
    ),
    "a sum's last bit is the runtime's": (
        "(float[n] x) => (float[n] y) <float[2] w = {0.1, 0.2}> { s = ReduceSum<keepdims = 0>(w) y = Mul(x, s) }",
        ["ReduceSum", "Mul"],
    ),
    "another symbol": (
        "(float[n,m] x, int64[2] t) => (float[n,m] y) { y = Reshape(x, t) }",
        ["Reshape"],
    ),
    "reversal keeps the shape": (
        "(float[n] x) => (float[n] y) <int64[1] a = {-1}, int64[1] e = {-9223372036854775807}, int64[1] z = {0}, "
        "int64[1] s = {-1}> { y = Slice(x, a, e, z, s) }",
        ["Slice"],
    ),
    "no number's sign and payload": (
        "(float[n] x) => (float[n] y) <float z = {0}> { q = Div(z, z) y = Max(x, q) }",
        ["Div", "Max"],
    ),
    "narrowing cast": ("(int64[n] x) => (int64[n] y) { a = Cast<to = 6>(x) y = Cast<to = 7>(a) }", ["Cast", "Cast"]),
    "a mask that is used": (
        "(float[n] x) => (float[n] y, bool[n] m) { y, m = Dropout(x) }",
        ["Dropout"],
    ),
    "random is not repeated": (
        "(float[n] x) => (float[n] y) { a = RandomNormalLike(x) b = RandomNormalLike(x) y = Sub(a, b) }",
        ["RandomNormalLike", "RandomNormalLike", "Sub"],
    ),
    "an input straight to an output": ("(float[n] x) => (float[n] y) { y = Identity(x) }", ["Identity"]),
    "two outputs of one value": (
        "(float[n] x) => (float[n] y, float[n] z) { y = Relu(x) z = Identity(y) }",
        ["Relu", "Identity"],
    ),
    "-1 beside a length that may be 0": (
        """(float[p,2,3,s] x) => (float[p,6,s] y) {
            n = Shape(x) i = Constant<value_ints = [0]>() k = Constant<value_ints = [3]>()
            c = Constant<value_ints = [6]>() a = Gather(n, i) b = Gather(n, k)
            t = Concat<axis = 0>(a, c, b) y = Reshape(x, t) }""",
        ["Shape", "Gather", "Gather", "Concat", "Reshape"],
    ),
}

GONE = {
    "identity": ("(float[n] x) => (float[n] y) { a = Identity(x) y = Relu(a) }", ["Relu"]),
    "identity at the end": ("(float[n] x) => (float[n] y) { a = Relu(x) y = Identity(a) }", ["Relu"]),
    "cast to the own type": ("(float[n] x) => (float[n] y) { a = Cast<to = 1>(x) y = Relu(a) }", ["Relu"]),
    "cast there and back": (
        "(float16[n] x) => (float16[n] y) { a = Cast<to = 1>(x) b = Cast<to = 10>(a) y = Neg(b) }",
        ["Neg"],
    ),
    "two widening casts": ("(float16[n] x) => (double[n] y) { a = Cast<to = 1>(x) y = Cast<to = 11>(a) }", ["Cast"]),
    "reshape to the own shape": (
        "(float[n,m] x) => (float[n,m] y) { t = Shape(x) a = Reshape(x, t) y = Relu(a) }",
        ["Relu"],
    ),
    "unsqueeze and squeeze": (
        "(float[n,m] x) => (float[n,m] y) <int64[1] a = {1}> { b = Unsqueeze(x, a) c = Squeeze(b, a) y = Relu(c) }",
        ["Relu"],
    ),
    "expand to the own shape": (
        "(float[n,m] x) => (float[n,m] y) { t = Shape(x) a = Expand(x, t) y = Relu(a) }",
        ["Relu"],
    ),
    "a slice of everything": (
        "(float[n,m] x) => (float[n,m] y) <int64[1] z = {0}, int64[1] e = {9223372036854775807}> "
        "{ a = Slice(x, z, e, z) y = Relu(a) }",
        ["Relu"],
    ),
    "a slice up to the length": (
        """(float[n,m] x) => (float[n,m] y) <int64[1] z = {0}> {
            t = Shape<start = 0, end = 1>(x) a = Slice(x, z, t, z) y = Relu(a) }""",
        ["Relu"],
    ),
    "transpose there and back": (
        "(float[n,m,k] x) => (float[n,m,k] y) "
        "{ a = Transpose<perm = [1, 2, 0]>(x) b = Transpose<perm = [2, 0, 1]>(a) y = Relu(b) }",
        ["Relu"],
    ),
    "two transposes": (
        "(float[n,m,k] x) => (float[k,n,m] y) "
        "{ a = Transpose<perm = [1, 2, 0]>(x) y = Transpose<perm = [1, 2, 0]>(a) }",
        ["Transpose"],
    ),
    "concat of one": ("(float[n] x) => (float[n] y) { a = Concat<axis = 0>(x) y = Relu(a) }", ["Relu"]),
    "concat with nothing": (
        "(float[n,2] x) => (float[n,2] y) <float[0,2] e = {}> { a = Concat<axis = 0>(e, x) y = Relu(a) }",
        ["Relu"],
    ),
    "concat with nothing, at the end": (
        "(float[n,2] x) => (float[n,2] y) <float[0,2] e = {}> { y = Concat<axis = 0>(e, x) }",
        ["Identity"],
    ),
    "an output known before the run": ("(float[n,2] x) => (int64[1] y) { y = Shape<start = 1>(x) }", ["Identity"]),
    "concat of three, one empty": (
        "(float[n,2] x) => (float[m,2] y) <float[0,2] e = {}> { y = Concat<axis = 0>(x, e, x) }",
        ["Concat"],
    ),
    "a condition that holds": (
        "(float[n] x, float[n] z) => (float[n] y) <bool c = {1}> { a = Where(c, x, z) y = Relu(a) }",
        ["Relu"],
    ),
    "and with all true": (
        """(bool[n,m] x) => (bool[n,m] y) {
            t = Shape(x) o = ConstantOfShape<value = bool[1] {1}>(t) a = And(o, x) y = Not(a) }""",
        ["Not"],
    ),
    "times one": (
        "(float[n] x) => (float[n] y) { c = Constant<value = float {1.0}>() a = Mul(c, x) y = Relu(a) }",
        ["Relu"],
    ),
    "plus zero, integers": (
        "(int64[n] x) => (int64[n] y) { c = Constant<value_int = 0>() a = Add(x, c) y = Neg(a) }",
        ["Neg"],
    ),
    "dropout": ("(float[n] x) => (float[n] y) { a = Dropout(x) y = Relu(a) }", ["Relu"]),
    "the same twice": (
        "(float[n] x) => (float[n] y) { a = Exp(x) b = Exp(x) y = Mul(a, b) }",
        ["Exp", "Mul"],
    ),
    "a constant mask": (
        """(float[2,2] x) => (float[2,2] y) <int64[2] s = {2, 2}> {
            c = ConstantOfShape<value = float[1] {-0.5}>(s) t = Trilu(c) y = Add(x, t) }""",
        ["Add"],
    ),
    "dead code": ("(float[n] x) => (float[n] y) { y = Relu(x) a = Exp(x) b = Log(a) }", ["Relu"]),
    "a float constant": (
        """(float[n] x) => (float[n] y) {
            c = Constant<value = float {16.0}>() q = Sqrt(c) o = Constant<value = float {1.0}>()
            r = Div(o, q) y = Mul(x, r) }""",
        ["Mul"],
    ),
}
