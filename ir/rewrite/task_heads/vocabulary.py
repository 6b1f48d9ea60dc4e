"""Leaves a language-model head only the words that are asked for: their columns or rows alone are read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ...core.constants import constant_of
from ...core.errors import PassRefused
from ...core.operators import MS, Key, keys
from ...core.operators.walks import WEIGHT_DERIVED, WORDS_CHOSEN
from ...serialization.partial_read import take
from ...shapes.infer import Facts
from ..builder import Builder
from ..lm_head import LmHead
from ..lm_head.ops import ELEMENTWISE, QUANTIZE, is_constant, key_of
from .idle import drop_nodes

KEEPS_LAST = keys(lambda row: row.keeps_all and not row.repeats) - {("", "Flatten")}
ROWS_ALONE = frozenset(("", name) for name in WORDS_CHOSEN)
MAX_DEPTH = 8


@dataclass(eq=False)
class Vocabulary:
    """A planned narrowing of one head to ``ids``; :meth:`plan` checks all of it, :meth:`apply` edits."""

    head: LmHead
    ids: Sequence[int]
    facts: Facts
    builder: Builder
    where: str
    path: list[ir.Node] = field(default_factory=list[ir.Node])
    swaps: list[tuple[ir.Node, int, Callable[[], ir.Value]]] = field(
        default_factory=list[tuple[ir.Node, int, Callable[[], ir.Value]]]
    )

    def plan(self) -> Vocabulary:
        """Finds every operand that has the vocabulary; raises PassRefused, with nothing changed."""
        ports = _PORTS.get(key_of(self.head.node))
        if ports is None:
            raise self._refuse(self.head.node, "words cannot be taken out of this product", "Quantize the graph after.")
        self.path = self._nodes_behind()
        for port, axis in ports(self.head.node):
            self._swap(self.head.node, port, axis)
        for node in self.path:
            self._check(node)
        return self

    @property
    def _graph(self) -> ir.Graph:
        graph = self.head.node.graph
        assert graph is not None, "a head stands in a graph"
        return graph

    def _refuse(self, node: ir.Node, what: str, hint: str = "") -> PassRefused:
        return PassRefused(what, where=self.where, found=f"{node.op_type} {node.name!r}", hint=hint)

    def _nodes_behind(self) -> list[ir.Node]:
        """What lies between the product and the logits, in graph order; all of it serves the logits alone."""
        seen: dict[ir.Node, None] = {}
        work = [self.head.output]
        while work:
            node = work.pop().producer()
            if node is None or node is self.head.node or node in seen:
                continue
            seen[node] = None
            carriers = node.inputs if key_of(node) in ELEMENTWISE else node.inputs[:1]
            work.extend(value for value in carriers if value is not None and not is_constant(value))
        reached, nodes = set(self.head.node.outputs), list[ir.Node]()
        for node in (node for node in self._graph if node in seen):
            if reached.intersection(value for value in node.inputs if value is not None):
                reached.update(node.outputs)
                nodes.append(node)
        inside = {*nodes, self.head.node}
        for node in inside:
            for value in node.outputs:
                other = next((use.node for use in value.uses() if use.node not in inside), None)
                if other is not None or (value.is_graph_output() and value is not self.head.output):
                    raise self._refuse(other or node, f"{value.name!r} is used elsewhere with the whole vocabulary")
        return nodes

    def _check(self, node: ir.Node) -> None:
        key, size = key_of(node), self.head.vocabulary
        if key in ELEMENTWISE:
            self._check_operands(node)
        elif key in QUANTIZE:
            if any((self.facts.shape(value) or ()) not in ((), (1,)) for value in node.inputs[1:] if value is not None):
                raise self._refuse(node, "a scale for each word behind the head")
        elif key in ROWS_ALONE:
            axis = node.attributes.get("axis")
            rank = len(self.facts.shape(node.outputs[0]) or (0, 0, 0))
            if key == ("", "Slice") or axis is None or axis.as_int() in (-1, rank - 1):
                shapes = [self.facts.shape(value) for value in (node.inputs[0], node.outputs[0]) if value is not None]
                if key != ("", "Slice") or any(shape is None or shape[-1] != size for shape in shapes):
                    raise self._refuse(node, "words are selected behind the head already")
        elif key not in KEEPS_LAST:
            raise self._refuse(
                node, "an operator behind the head looks at the whole vocabulary",
                "Export the graph without it; as=softmax makes probabilities of the chosen words.",
            )  # fmt: skip
        elif (self.facts.shape(node.outputs[0]) or (None,))[-1] != size:
            raise self._refuse(node, "an operator behind the head moves the vocabulary to another axis")
        elif key == ("", "Reshape"):
            self._check_reshape(node)

    def _check_reshape(self, node: ir.Node) -> None:
        known, old = constant_of(node.inputs[1]), node.inputs[1]
        if known is None:
            self.swaps.append((node, 1, lambda: self._retargeted(node, old)))
        elif (target := [int(size) for size in known.numpy()])[-1] != -1:
            new = [*target[:-1], len(self.ids)]
            self.swaps.append((node, 1, lambda: self.builder.ints(new, f"{node.name}/target")))

    def _retargeted(self, node: ir.Node, target: ir.Value | None) -> ir.Value:
        """A shape that is computed, its last number replaced."""
        ints, name = self.builder.ints, f"{node.name}/target"
        rows = self.builder.op("Slice", [target, ints([0], "0"), ints([-1], "end"), ints([0], "0")], f"{name}/rows")
        return self.builder.op("Concat", [rows, ints([len(self.ids)], "words")], name, {"axis": 0})

    def _check_operands(self, node: ir.Node) -> None:
        """Constants with a column a word are narrowed too (a bias); others are the same for all words."""
        inside = {self.head.node.outputs[0], *(value for other in self.path for value in other.outputs)}
        for port, value in enumerate(node.inputs):
            if value is None or value in inside:
                continue
            shape = self.facts.shape(value)
            if shape is None or (shape and shape[-1] not in (1, self.head.vocabulary)):
                raise self._refuse(node, f"the operand {value.name!r} has no column a word")
            if not shape or shape[-1] != self.head.vocabulary:
                continue
            if is_constant(value):
                self._swap(node, port, len(shape) - 1)
            else:  # columns that are computed: a penalty a word
                self.swaps.append((node, port, functools.partial(self._picked, value)))

    def _picked(self, value: ir.Value) -> ir.Value:
        ids = self.builder.ints(list(self.ids), "words")
        return self.builder.op("Gather", [value, ids], f"{value.name}/words", {"axis": -1}, dtype=value.dtype)

    def _swap(self, node: ir.Node, port: int, axis: int) -> None:
        value = node.inputs[port] if port < len(node.inputs) else None
        shape = self.facts.shape(value) if value is not None else None
        if value is None or (shape is not None and all(size == 1 for size in shape)):
            return
        self._narrowable(node, value, axis)
        self.swaps.append((node, port, lambda: self._narrow(value, axis)))

    def _narrowable(self, node: ir.Node, value: ir.Value, axis: int, depth: int = MAX_DEPTH) -> None:
        if constant_of(value) is not None:
            return
        maker = value.producer()
        key = key_of(maker) if maker is not None else None
        if maker is None or depth == 0 or key not in _DERIVES:
            raise self._refuse(node, f"the words in {value.name!r} are not found: it is no constant")
        if key in QUANTIZE and _quantized_axis(maker, self.facts) == axis and "block_size" in maker.attributes:
            raise self._refuse(maker, "blocks of several words share a scale")
        inner = maker.inputs[0]
        assert inner is not None, "an operator has its operand"
        self._narrowable(node, inner, _axis_before(maker, axis), depth - 1)

    def _narrow(self, value: ir.Value, axis: int) -> ir.Value:
        """The same constant with the chosen words alone; operators on the way are made anew: others may use them."""
        return self.builder.share(("narrow", id(value), axis), lambda: self._made(value, axis))

    def _made(self, value: ir.Value, axis: int) -> ir.Value:
        tensor = constant_of(value)
        if tensor is not None:
            rows = len(tensor.shape)
            size = int(tensor.shape.numpy()[axis])
            ids = list(self.ids)
            if size != self.head.vocabulary:  # some numbers a word, one after the other (MatMulNBits)
                each = size // self.head.vocabulary
                ids = [each * index + at for index in ids for at in range(each)]
            assert axis < rows, "the axis is the tensor's"
            return self.builder.constant(take(tensor, ids, axis), f"{value.name}/words")
        node = value.producer()
        assert node is not None and node.inputs[0] is not None, "checked before"
        inner, inputs = _axis_before(node, axis), list(node.inputs)
        inputs[0] = self._narrow(node.inputs[0], inner)
        if key_of(node) in QUANTIZE:
            for port, given in enumerate(node.inputs[1:], 1):
                shape = self.facts.shape(given) if given is not None else None
                if given is None or not shape or shape == (1,):
                    continue
                if len(shape) > 1 or _quantized_axis(node, self.facts) == inner:
                    inputs[port] = self._narrow(given, inner if len(shape) > 1 else 0)
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        return self.builder.op(
            node.op_type, inputs, f"{value.name}/words", attributes, None, value.dtype, domain=node.domain
        )

    def apply(self) -> ir.Value:
        """Puts the narrow constants in, and gives the logits, now of the chosen words."""
        olds = [node.inputs[port] for node, port, _ in self.swaps]
        for node, port, make in self.swaps:
            new = make()
            self.builder.place_before(node)
            node.replace_input_with(port, new)
        if "N" in self.head.node.attributes:
            self.head.node.attributes["N"] = ir.AttrInt64("N", len(self.ids))
        for value in [*self.head.node.outputs, *(value for node in self.path for value in node.outputs)]:
            if value.shape is not None and len(value.shape):
                value.shape = ir.Shape([*list(value.shape)[:-1], len(self.ids)])
        for old in olds:
            if old is not None and not old.uses():
                _drop(self._graph, old)
        return self.head.output


def _drop(graph: ir.Graph, value: ir.Value) -> None:
    """Takes out a value that nothing uses any more, and what made it."""
    maker = value.producer()
    if maker is not None:
        drop_nodes(graph, [maker])
    elif value.name is not None and value.is_initializer() and not value.is_graph_input():
        del graph.initializers[value.name]


def _axis_before(node: ir.Node, axis: int) -> int:
    perm = node.attributes.get("perm")
    if node.op_type == "Transpose":
        return int(perm.as_ints()[axis]) if perm is not None else 1 - axis
    return axis


def _quantized_axis(node: ir.Node, facts: Facts) -> int:
    attribute = node.attributes.get("axis")
    axis = attribute.as_int() if attribute is not None else 1
    rank = len(facts.shape(node.inputs[0]) or (0, 0)) if node.inputs[0] is not None else 2
    return axis % rank


def _matmul(node: ir.Node) -> list[tuple[int, int]]:
    flipped = node.attributes.get("transB")
    return [(1, 0 if flipped is not None and flipped.as_int() else 1)]


def _gemm(node: ir.Node) -> list[tuple[int, int]]:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    rank = len(bias.shape) if bias is not None and bias.shape is not None else 1
    return [*_matmul(node), (2, rank - 1)]


def _nbits(node: ir.Node) -> list[tuple[int, int]]:
    """Weight, scales, zero points and bias of MatMulNBits begin with the words (ContribOperators.md)."""
    return [(port, 0) for port in (1, 2, 3, 5) if port < len(node.inputs)]


_PORTS: Mapping[Key, Callable[[ir.Node], list[tuple[int, int]]]] = {
    ("", "MatMul"): _matmul,
    (MS, "FusedMatMul"): _matmul,
    ("", "Gemm"): _gemm,
    (MS, "MatMulNBits"): _nbits,
}
"""Operator -> its operands with words, and the axis of the words in each."""

_DERIVES = keys(lambda row: row.dequantizes) | {("", name) for name in WEIGHT_DERIVED}
