"""Random graphs of shape arithmetic, for properties: lengths are computed, compared, and steer Reshape and Expand."""

from __future__ import annotations

import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper


class Arithmetic:
    """A random graph of shape arithmetic over x [a, b, 3] and y [b, 4]; every step is an integer vector or scalar."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.vectors: list[tuple[str, int]] = [(self.node("Shape", ["x"]), 3), (self.node("Shape", ["y"]), 2)]

    def node(self, op: str, inputs: list[str], **attributes: object) -> str:
        """Adds a node and returns its output's name."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def constant(self, numbers: list[int], scalar: bool = False) -> str:
        """Adds an integer constant, as an initializer."""
        name = f"c{len(self.constants)}"
        self.constants.append(helper.make_tensor(name, TensorProto.INT64, [] if scalar else [len(numbers)], numbers))
        return name

    def numbers(self, low: int, high: int, size: int) -> list[int]:
        """Random numbers."""
        return self.draw(st.lists(st.integers(low, high), min_size=size, max_size=size))

    def step(self) -> None:
        """Adds one random operation to the pool."""
        self.vectors.append(self.draw(st.sampled_from(STEPS))(self))

    def pick(self) -> tuple[str, int]:
        """A vector of the pool, and its length."""
        return self.draw(st.sampled_from(self.vectors))


def _binary(graph: Arithmetic) -> tuple[str, int]:
    name, size = graph.pick()
    op = graph.draw(st.sampled_from(["Add", "Sub", "Mul", "Min", "Max"]))
    same = [other for other, length in graph.vectors if length == size]
    other = (
        graph.draw(st.sampled_from(same)) if graph.draw(st.booleans()) else graph.constant(graph.numbers(-3, 4, size))
    )
    return graph.node(op, [name, other]), size


def _divide(graph: Arithmetic) -> tuple[str, int]:
    name, size = graph.pick()
    return graph.node(
        graph.draw(st.sampled_from(["Div", "Mod"])), [name, graph.constant(graph.numbers(1, 4, size))]
    ), size


def _gather(graph: Arithmetic) -> tuple[str, int]:
    name, size = graph.pick()
    places = graph.numbers(-size, size - 1, graph.draw(st.integers(1, 3)))
    return graph.node("Gather", [name, graph.constant(places)], axis=0), len(places)


def _concat(graph: Arithmetic) -> tuple[str, int]:
    (a, first), (b, second) = graph.pick(), graph.pick()
    return graph.node("Concat", [a, b], axis=0), first + second


def _slice(graph: Arithmetic) -> tuple[str, int]:
    name, size = graph.pick()
    start = graph.draw(st.integers(0, size - 1))
    end = graph.draw(st.integers(start + 1, size))
    return graph.node("Slice", [name, graph.constant([start]), graph.constant([end])]), end - start


def _choose(graph: Arithmetic) -> tuple[str, int]:
    name, size = graph.pick()
    other = graph.constant(graph.numbers(-2, 3, size))
    compare = graph.draw(st.sampled_from(["Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"]))
    return graph.node("Where", [graph.node(compare, [name, other]), other, name]), size


def _through(graph: Arithmetic) -> tuple[str, int]:
    name, size = graph.pick()
    kind = graph.draw(st.sampled_from([TensorProto.FLOAT, TensorProto.INT32, TensorProto.DOUBLE]))
    return graph.node("Cast", [graph.node("Cast", [name], to=kind)], to=TensorProto.INT64), size


def _fold(graph: Arithmetic) -> tuple[str, int]:
    name, _ = graph.pick()
    op = graph.draw(st.sampled_from(["ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin"]))
    return graph.node(op, [name], keepdims=1), 1


def _scalar(graph: Arithmetic) -> tuple[str, int]:
    name, size = graph.pick()
    one = graph.node("Gather", [name, graph.constant([graph.draw(st.integers(0, size - 1))], scalar=True)], axis=0)
    return graph.node("Unsqueeze", [one, graph.constant([0])]), 1


STEPS = [_binary, _divide, _gather, _concat, _slice, _choose, _through, _fold, _scalar]


@st.composite
def arithmetic(draw: st.DrawFn) -> onnx.ModelProto:
    """A model whose outputs are steps of the arithmetic, and reshapes and expansions that it steers."""
    graph = Arithmetic(draw)
    for _ in range(draw(st.integers(2, 9))):
        graph.step()
    outputs = [helper.make_tensor_value_info(name, TensorProto.INT64, None) for name, _ in graph.vectors[-3:]]
    outputs = [value for value in outputs if value.name not in ("v0", "v1")]
    hole = graph.constant([-1])
    head = graph.node("Slice", ["v0", graph.constant([0]), graph.constant([draw(st.integers(1, 2))])])
    reshaped = graph.node("Reshape", ["x", graph.node("Concat", [head, hole], axis=0)])
    back = graph.node("Reshape", [reshaped, draw(st.sampled_from(["v0", hole]))])
    turned = graph.node("Transpose", ["x"], perm=draw(st.permutations([0, 1, 2])))
    wider = graph.node("Concat", [graph.constant([2]), "v0"], axis=0)
    expanded = graph.node("Expand", [graph.node("Unsqueeze", ["x", graph.constant([0])]), wider])
    merged = graph.node("Reshape", [turned, graph.node("Concat", [graph.node("Shape", [turned], end=2), hole], axis=0)])
    outputs += [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (back, merged, reshaped, expanded)
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["a", "b", 3]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 4]),
    ]
    made = helper.make_graph(graph.nodes, "random", inputs, outputs, graph.constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
