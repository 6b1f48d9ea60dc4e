"""Holds the nodes of a model against their operators' schemas, so that no reader need doubt its attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from ..core.constants import constant_of
from ..core.errors import InputError

MAX_INLINED = 1 << 18  # nodes that calls of functions stand for: eight times a graph of 126 layers, written out


@dataclass(frozen=True, slots=True)
class _Rule:
    """What every node of one operator has: the ``needed`` of its ``fewest`` inputs may not be left out (Loop has none).

    ``element_types`` are the attributes that number one, ``own`` is what no other operator is asked.
    """

    fewest: int
    needed: tuple[int, ...]
    most: int
    types: Mapping[str, ir.AttributeType]
    required: frozenset[str]
    element_types: tuple[str, ...]
    own: Callable[[ir.Node], None] | None


def check_nodes(model: ir.Model) -> None:
    """Holds every node against its schema, in one walk: inputs, types of attributes, axes against declared ranks.

    Raises InputError, naming the node. Attributes that a schema does not know stay: onnx's checker tells of them when
    the graph is saved. Operators without a schema (contributed ones, also those that exporters write without a domain)
    are held to what every node has. A value that states a type without an element type (exporters do so for operators
    that they do not know) states none; an input that does is refused.
    """
    for value in model.graph.inputs:
        if value.type is not None and value.type.dtype is _NO_ELEMENT:
            raise InputError(
                "has a type without an element type", where=f"graph input {value.name!r}",
                hint="The file is damaged: export it again.",
            )  # fmt: skip
    SchemaCheck(model.opset_imports).check(model.graph)
    for function in model.functions.values():
        SchemaCheck({**model.opset_imports, **function.opset_imports}).check(function)


class SchemaCheck:
    """Checks nodes under one set of imported opsets; each schema is looked up once."""

    def __init__(self, opsets: Mapping[str, int]) -> None:
        self._version = opsets.get("", 1)
        self._rules: dict[str, _Rule | None] = {}

    def check(self, nodes: Iterable[ir.Node]) -> None:
        """Raises InputError at the first node that its operator cannot have."""
        rules = self._rules
        for node in nodes:  # some thirty thousand: what most of them need comes first
            if not node.outputs:
                raise _wrong(node, "gives nothing", wanted="an output")
            for value in node.outputs:
                if value.type is not None and value.type.dtype is _NO_ELEMENT:
                    value.type = None
            op_type = node.op_type
            if op_type not in rules:
                rules[op_type] = _rule_of(op_type, self._version)
            rule = rules[op_type]
            if rule is None or node.domain:
                self._check_unknown(node)
                continue
            inputs = node.inputs
            if not rule.fewest <= len(inputs) <= rule.most or (None in inputs and _left_out(inputs, rule)):
                raise _wrong_inputs(node, rule)
            if rule.types:
                self._check_attributes(node, rule)
            if rule.own is not None:
                rule.own(node)

    def _check_attributes(self, node: ir.Node, rule: _Rule) -> None:
        attributes = node.attributes.data
        for name, attribute in attributes.items():
            kind = attribute.type
            if kind is not rule.types.get(name, kind) or kind is _UNDEFINED:
                what = f"attribute {name!r} has no type, or another than its operator's"
                raise _wrong(node, what, kind.name, rule.types[name].name if name in rule.types else "a type")
            if kind is _GRAPH or kind is _GRAPHS:
                self._check_inside(attribute)
        for name in rule.required:
            if name not in attributes:
                raise _wrong(node, "lacks an attribute that its operator needs", wanted=repr(name))
        for name in rule.element_types:
            attribute = attributes.get(name)
            if attribute is not None and not attribute.is_ref() and attribute.value not in _ELEMENT_TYPES:
                raise _wrong(node, f"attribute {name!r} numbers no element type", attribute.value)

    def _check_unknown(self, node: ir.Node) -> None:
        """What holds of a node whatever its operator."""
        for name, attribute in node.attributes.items():
            if attribute.type is _UNDEFINED:
                raise _wrong(node, f"attribute {name!r} has no type")
            if attribute.type is _GRAPH or attribute.type is _GRAPHS:
                self._check_inside(attribute)

    def _check_inside(self, attribute: ir.Attr) -> None:
        if attribute.is_ref():
            return
        graphs = [attribute.as_graph()] if attribute.type is ir.AttributeType.GRAPH else attribute.as_graphs()
        for graph in graphs:
            self.check(graph)


_ELEMENT_TYPES = frozenset(int(item) for item in ir.DataType)  # 0 is the default where a schema lets it be inferred
_NUMBER_ELEMENT_TYPES = ("to", "dtype", "output_dtype", "stash_type", "softmax_precision", "qk_matmul_precision")
_NO_ELEMENT = ir.DataType.UNDEFINED
_OPTIONAL = onnx.defs.OpSchema.FormalParameterOption.Optional
_UNDEFINED, _GRAPH, _GRAPHS = ir.AttributeType.UNDEFINED, ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS


def _rule_of(op_type: str, version: int) -> _Rule | None:
    try:
        schema = onnx.defs.get_schema(op_type, version, "")
    except onnx.defs.SchemaError:
        return None
    last = len(schema.inputs) - 1
    kinds = {name: str(attribute.type).rpartition(".")[2] for name, attribute in schema.attributes.items()}
    return _Rule(
        fewest=schema.min_input,
        needed=tuple(i for i in range(schema.min_input) if schema.inputs[min(i, last)].option != _OPTIONAL),
        most=schema.max_input,
        types={name: ir.AttributeType[kind] for name, kind in kinds.items()},
        required=frozenset(name for name, attribute in schema.attributes.items() if attribute.required),
        element_types=tuple(name for name in _NUMBER_ELEMENT_TYPES if name in kinds),
        own=_OWN.get(op_type),
    )


def _left_out(inputs: Sequence[ir.Value | None], rule: _Rule) -> bool:
    return any(inputs[index] is None for index in rule.needed)


def _wrong_inputs(node: ir.Node, rule: _Rule) -> InputError:
    if rule.fewest <= len(node.inputs) <= rule.most:
        names = [value.name if value is not None else "" for value in node.inputs]
        return _wrong(node, "leaves out an input that its operator needs", names)
    most = rule.most if rule.most < 2**31 - 1 else "any number of"
    what = "has another number of inputs than its operator"
    return _wrong(node, what, len(node.inputs), f"{rule.fewest} to {most} inputs")


def _wrong(node: ir.Node, what: str, found: object = None, wanted: object = None) -> InputError:
    name = node.name or next((value.name for value in node.outputs), "")
    return InputError(
        what, where=f"node {name!r} ({node.op_type})", found=found, wanted=wanted,
        hint="The file is damaged, or its exporter wrote an invalid node: export it again.",
    )  # fmt: skip


# axes against ranks ---------------------------------------------------------------------------------------------------


def _perm(node: ir.Node) -> None:
    attribute = node.attributes.get("perm")
    if attribute is None or attribute.is_ref():
        return
    perm, rank = list(attribute.as_ints()), _rank(node.inputs[0])
    if sorted(perm) != list(range(len(perm))) or (rank is not None and rank != len(perm)):
        wanted = f"each axis of rank {len(perm) if rank is None else rank} once"
        raise _wrong(node, "perm is no order of its operand's axes", perm, wanted)


def _axis(*, end: int = 0) -> Callable[[ir.Node], None]:
    """The rule that ``axis`` counts an axis of the first input, or one of ``end`` more."""

    def rule(node: ir.Node) -> None:
        attribute = node.attributes.get("axis")
        rank = _rank(node.inputs[0])
        if attribute is None or attribute.is_ref() or rank is None:
            return
        axis = attribute.as_int()
        if not -rank <= axis < rank + end:
            raise _wrong(node, "axis lies outside its operand's rank", axis, f"{-rank} to {rank + end - 1}")

    return rule


def _squeezed(node: ir.Node) -> None:
    rank = _rank(node.inputs[0])
    axes = _small_ints(node.inputs[1]) if len(node.inputs) > 1 else None
    if rank is None or axes is None:
        return
    if any(not -rank <= axis < rank for axis in axes):
        raise _wrong(node, "axes lie outside its operand's rank", axes, f"axes of rank {rank}")


def _to_a_type(node: ir.Node) -> None:
    if not node.attributes["to"].is_ref() and node.attributes["to"].value == 0:
        raise _wrong(node, "attribute 'to' numbers no element type", 0)


def _inner(graphs: Mapping[str, tuple[int, int]], *, takes_inputs: bool = True) -> Callable[[ir.Node], None]:
    """The rule that inner graphs have the ports of their node: (inputs, outputs) they have more than it."""

    def rule(node: ir.Node) -> None:
        for name, (inputs, outputs) in graphs.items():
            if node.attributes[name].is_ref():
                continue
            graph = node.attributes[name].as_graph()
            wanted = (len(node.inputs) + inputs if takes_inputs else 0, len(node.outputs) + outputs)
            if (len(graph.inputs), len(graph.outputs)) != wanted:
                found = f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs"
                raise _wrong(node, f"{name} has not its node's ports", found, f"{wanted[0]} and {wanted[1]}")

    return rule


def _small_ints(value: ir.Value | None) -> list[int] | None:
    tensor = constant_of(value)
    if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.size > 64 or not tensor.dtype.is_integer():
        return None
    return [int(item) for item in tensor.numpy().reshape(-1)]


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


_OWN: dict[str, Callable[[ir.Node], None]] = {
    "Cast": _to_a_type,
    "If": _inner({"then_branch": (0, 0), "else_branch": (0, 0)}, takes_inputs=False),
    "Loop": _inner({"body": (0, 1)}),
    "Scan": _inner({"body": (0, 0)}),
    "Transpose": _perm,
    "Squeeze": _squeezed,
    "Flatten": _axis(end=1),
    **dict.fromkeys(
        (
            *("ArgMax", "ArgMin", "Compress", "Concat", "Gather", "GatherElements", "LayerNormalization"),
            *("LogSoftmax", "ScatterElements", "Softmax", "Split", "TopK"),
        ),
        _axis(),
    ),
}


# calls of functions ---------------------------------------------------------------------------------------------------


def check_calls(proto: onnx.ModelProto) -> None:
    """Raises InputError where calls stand for more than MAX_INLINED nodes, or a function calls itself.

    onnx's shape inference and every inliner write each call out: nested calls grow with the power of their depth.
    """
    if not proto.functions:
        return
    bodies = {(f.domain, f.name, f.overload): f for f in proto.functions}
    sizes: dict[tuple[str, str, str], int] = {}
    total = sum(_weight(node, bodies, sizes, ()) - 1 for node in _deep(proto.graph.node))
    if total > MAX_INLINED:
        raise InputError(
            "its functions stand for too many nodes", where=f"graph {proto.graph.name!r}", found=total,
            wanted=f"at most {MAX_INLINED}",
        )  # fmt: skip


_Key = tuple[str, str, str]


def _weight(
    node: onnx.NodeProto, bodies: Mapping[_Key, onnx.FunctionProto], sizes: dict[_Key, int], path: tuple[_Key, ...]
) -> int:
    """The nodes that one node stands for; the size of each function is counted once."""
    key = (node.domain, node.op_type, node.overload)
    body = bodies.get(key)
    if body is None:
        return 1
    if key not in sizes:
        if key in path or len(path) > 64:
            raise InputError("calls itself, or calls nest too deeply", where=f"function {node.op_type!r}")
        sizes[key] = sum(_weight(inner, bodies, sizes, (*path, key)) for inner in _deep(body.node))
    return max(sizes[key], 1)


def _deep(nodes: Iterable[onnx.NodeProto]) -> Iterable[onnx.NodeProto]:
    """Nodes and those of the graphs in their attributes."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
                for graph in (attribute.g, *attribute.graphs):
                    yield from _deep(graph.node)
