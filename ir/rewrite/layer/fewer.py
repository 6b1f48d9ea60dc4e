"""Parts of a graph that are alike but for their weights go out of it, so that one of each kind is left to run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...core.constants import constant_of
from ...core.operators.walks import SIZES
from ...core.scopes import bodies
from ...interface.roles import Role

_NUMBER = re.compile(r"\d+")
MAX_CONTENT = 4096  # elements of a constant that are compared; of larger ones the place
Mark = int
"""A number for everything that a value is computed from; equal where that is alike but for weights."""


@dataclass(frozen=True, eq=False)
class Part:
    """What lies between two values through which everything goes on from the tokens.

    Attributes:
        entry: The value that enters it.
        exit: The value that leaves it.
        weights: The names of the matrices that it takes.
        mark: Equal for two parts that compute the same but for their weights.
        outputs: What else leaves the graph there.
        inputs: What else enters it there: caches.
    """

    entry: ir.Value
    exit: ir.Value
    weights: frozenset[str]
    mark: Mark
    outputs: tuple[ir.Value, ...]
    inputs: frozenset[str]


def find_parts(model: ir.Model, roles: Mapping[str, Role]) -> list[Part]:
    """The parts of the main graph in their order; none where subgraphs hide what goes where."""
    if any(bodies(node) for node in model.graph):
        return []
    starts = [v for v in model.graph.inputs if roles.get(v.name or "") in (Role.TOKEN_IDS, Role.EMBEDDINGS)]
    flow = _Flow({id(value) for value in starts})
    marks = _Marks(flow.reached)
    return [marks.part(entry, nodes, out) for entry, nodes, out in flow.cuts(model.graph)]


def leave_out(model: ir.Model, parts: Sequence[Part]) -> bool:
    """Takes parts, in the graph's order, out, each one's entry for its exit; False where something is still needed.

    Inputs and outputs that the parts alone used go with them. The graph is of no use where the answer is False.
    """
    graph, gone = model.graph, {id(value) for part in parts for value in part.outputs}
    served = {id(value) for value in graph.inputs if value.uses()}
    for part in reversed(parts):  # what enters one may be what leaves the one before
        part.exit.replace_all_uses_with(part.entry)
    graph.outputs[:] = [value for value in graph.outputs if id(value) not in gone]
    RemoveUnusedNodesPass()(model)
    dead = {id(value) for value in graph.inputs if id(value) in served and not value.uses()}
    graph.inputs[:] = [value for value in graph.inputs if id(value) not in dead]
    own = frozenset[str]().union(*(part.inputs for part in parts))
    return not any(value.name in own for value in graph.inputs)


@dataclass
class _Flow:
    """What is computed from the tokens, sizes apart, swept in the graph's order."""

    reached: set[int]

    def cuts(self, graph: ir.Graph) -> Iterator[tuple[ir.Value, list[ir.Node], ir.Value]]:
        """Entry, nodes and exit of each part: where a single value is all that later nodes take."""
        left, nodes = Counter[int](), list[ir.Node]()
        entry: ir.Value | None = None
        for node in graph:
            taken = {id(value) for value in node.inputs if value is not None and id(value) in self.reached}
            if not taken or node.op_type in SIZES:
                continue
            nodes.append(node)
            for value in taken:
                left[value] -= 1
                if left[value] <= 0:
                    del left[value]
            for value in node.outputs:
                self.reached.add(id(value))
                if users := {user for user, _ in value.uses() if user.op_type not in SIZES}:
                    left[id(value)] = len(users)
            if len(left) == 1 and id(node.outputs[0]) in left:
                if entry is not None:
                    yield entry, nodes, node.outputs[0]
                entry, nodes = node.outputs[0], []


@dataclass(frozen=True)
class _Taken:
    """What values are computed from, by name: matrices, and the graph's inputs, where more than their sizes is read."""

    matrices: frozenset[str] = frozenset()
    inputs: frozenset[str] = frozenset()

    def __or__(self, other: _Taken) -> _Taken:
        if self is _NOTHING or other is self:
            return other
        return self if other is _NOTHING else _Taken(self.matrices | other.matrices, self.inputs | other.inputs)


_NOTHING = _Taken()


@dataclass
class _Marks:
    """Numbers of values by what they are computed from: within a part the entry is the same for all."""

    flow: set[int]
    _numbers: dict[object, Mark] = field(default_factory=dict[object, Mark])
    _known: dict[int, tuple[Mark, _Taken]] = field(default_factory=dict[int, "tuple[Mark, _Taken]"])

    def part(self, entry: ir.Value, nodes: Sequence[ir.Node], out: ir.Value) -> Part:
        self._known[id(entry)] = self._number("entry"), _NOTHING
        taken = _NOTHING
        for node in nodes:
            taken |= self._visit(node)
        outputs = tuple(v for node in nodes for v in node.outputs if v.is_graph_output())
        inputs = frozenset(name for name in taken.inputs if _NUMBER.search(name))
        names = sorted(inputs | {v.name or "" for v in outputs})
        made = tuple(self._known[id(v)][0] for v in outputs)
        mark = self._number((self._known[id(out)][0], made, _relative(names), out.dtype))
        return Part(entry, out, taken.matrices, mark, outputs, inputs)

    def _visit(self, node: ir.Node) -> _Taken:
        marks, taken = list[Mark](), _NOTHING
        for value in node.inputs:
            mark, names = self._of(value)
            marks.append(mark)
            taken |= names
        if node.op_type in SIZES:
            taken = _NOTHING
        attributes = tuple((name, _content(value)) for name, value in sorted(node.attributes.items()))
        key = (node.domain, node.op_type, attributes, tuple(marks))
        for at, output in enumerate(node.outputs):
            self._known[id(output)] = self._number((key, at)), taken
        return taken

    def _of(self, value: ir.Value | None) -> tuple[Mark, _Taken]:
        """Of a value that no part makes: constants, inputs, and what is computed from them alone."""
        if value is None:
            return self._number(None), _NOTHING
        work = [value]
        while work:
            last = work[-1]
            node = last.producer() if constant_of(last) is None else None
            behind = [v for v in node.inputs if v is not None and id(v) not in self._known] if node is not None else []
            if id(last) in self._known or not behind:
                work.pop()
            if id(last) in self._known:
                continue
            if behind:
                work.extend(behind)
            elif node is not None:
                self._visit(node)
            else:
                self._known[id(last)] = self._leaf(last)
        return self._known[id(value)]

    def _leaf(self, value: ir.Value) -> tuple[Mark, _Taken]:
        name, tensor = value.name or "", constant_of(value)
        if tensor is not None:
            matrix = value.is_initializer() and _is_large(tensor) and len(tensor.shape) > 1
            return self._number(_constant(value, tensor)), _Taken(frozenset((name,)) if matrix else frozenset())
        mark = self._number((_NUMBER.sub("#", name, count=1), str(value.shape), value.dtype))
        return mark, _Taken(inputs=frozenset((name,)))

    def _number(self, key: object) -> Mark:
        return self._numbers.setdefault(key, len(self._numbers))


def _relative(names: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Names with their first number counted from the smallest: ``past.3.key`` and ``present.3.key`` agree."""
    found = [(_NUMBER.sub("#", name, count=1), match) for name in names if (match := _NUMBER.search(name))]
    least = min((int(match.group()) for _, match in found), default=0)
    return tuple((stem, int(match.group()) - least) for stem, match in found)


def _is_large(tensor: ir.TensorProtocol) -> bool:
    """Vectors and matrices of floats, or packed ones: what differs from layer to layer and means nothing by itself."""
    return tensor.size > 1 and len(tensor.shape) in (1, 2) and not _counts(tensor)


def _counts(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype in (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)


def _constant(value: ir.Value, tensor: ir.TensorProtocol) -> object:
    kind = (tensor.dtype, tuple(tensor.shape.numpy()))
    if value.is_initializer() and _is_large(tensor):
        return ("weight", kind)
    if tensor.size > MAX_CONTENT or isinstance(tensor, ir.ExternalTensor):
        return ("place", value.name)
    return (kind, tensor.tobytes())


def _content(attribute: ir.Attr) -> object:
    if attribute.type is ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        return (tensor.dtype, tuple(tensor.shape.numpy()), tensor.tobytes())
    content: Any = attribute.value
    return tuple(cast("list[Any]", content)) if isinstance(content, list) else content
