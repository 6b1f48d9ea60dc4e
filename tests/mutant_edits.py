"""What mutations of graphs are made of: where caches, masks and positions are in our own graphs, and edits there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

Op = Callable[..., ir.Value]
Mutation = Callable[[ir.Model], bool]
FLOAT, INT64, BOOL = (int(t) for t in (ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL))
FAR = np.iinfo(np.int64).max
Build = Callable[[Op, ir.Value], ir.Value]
COMPARES = frozenset(("Less", "LessOrEqual", "Greater", "GreaterOrEqual"))
NEW_ROWS = {"ScatterND": 2, "ScatterElements": 2, "TensorScatter": 1, "CtxScatter": 2, "CtxScatterCB": 3}
POSITIONS = {"ScatterND": 1, "ScatterElements": 1, "TensorScatter": 2, "CtxScatter": 1, "CtxScatterCB": 2}
_MOVES = frozenset(("Cast", "Transpose", "Reshape", "Identity"))


def did(edits: list[bool]) -> bool:
    """Whether one of the edits was made: a list, as each is to be tried."""
    return any(edits)


def pasts(model: ir.Model) -> list[ir.Value]:
    """The cache inputs."""
    return [v for v in model.graph.inputs if re.match(r"past|cache_(key|value)", v.name or "")]


def presents(model: ir.Model) -> list[ir.Value]:
    """The cache outputs."""
    return [v for v in model.graph.outputs if re.search(r"^present|_RetainedState$|^updated", v.name or "")]


def given(model: ir.Model, name: str) -> ir.Value | None:
    """The input of that name."""
    return next((v for v in model.graph.inputs if v.name == name), None)


def updates(model: ir.Model) -> list[ir.Node]:
    """The nodes that put new rows to or into a cache."""
    found: dict[int, ir.Node] = {}
    for past in pasts(model):
        for node in reached([past], _MOVES):
            if node.op_type in NEW_ROWS or (node.op_type == "Concat" and len(node.inputs) == 2):
                found[id(node)] = node
    return list(found.values())


def new_rows(node: ir.Node) -> tuple[int, ir.Value]:
    """Which operand of an update holds the new rows."""
    at = NEW_ROWS.get(node.op_type, 1)
    value = node.inputs[at]
    assert value is not None
    return at, value


def old_rows(node: ir.Node) -> tuple[int, ir.Value]:
    """Which operand of an update holds the old rows."""
    value = node.inputs[0]
    assert value is not None
    return 0, value


def row_axis(node: ir.Node) -> int:
    """The axis of an update that counts rows."""
    if "axis" in node.attributes:
        return node.attributes["axis"].as_int()
    return 0 if node.op_type == "ScatterND" else 2


def reached(values: Iterable[ir.Value], through: frozenset[str] | None = None) -> Iterator[ir.Node]:
    """Nodes that the values reach, each once; through these operators alone, or all."""
    work, seen = list(values), set[int]()
    while work:
        for node, _ in work.pop(0).uses():
            if id(node) in seen:
                continue
            seen.add(id(node))
            yield node
            if through is None or node.op_type in through:
                work.extend(node.outputs)


def behind(values: Iterable[ir.Value | None]) -> Iterator[ir.Node]:
    """Nodes that the values are computed from, each once."""
    work, seen = [v for v in values if v is not None], set[int]()
    while work:
        node = work.pop().producer()
        if node is not None and id(node) not in seen:
            seen.add(id(node))
            yield node
            work.extend(v for v in node.inputs if v is not None)


def masks(model: ir.Model) -> list[ir.Node]:
    """The comparisons that a mask is made of."""
    found: list[ir.Node] = []
    for node in list(model.graph):
        if node.op_type not in COMPARES:
            continue
        ends = {n.op_type for n in reached(node.outputs, _MASKING)}
        if "Softmax" in ends:
            found.append(node)
    return found


_MASKING = frozenset("And Or Not Where Cast Unsqueeze Squeeze Reshape Expand Add Mul Slice Identity".split())


def reads(model: ir.Model) -> list[ir.Node]:
    """The comparisons that say which rows are read back."""
    return [n for n in model.graph if n.op_type in COMPARES and _picks(n)]


def _picks(node: ir.Node) -> bool:
    return any(user.op_type == "Where" and index == 0 and _gathers(user) for user, index in node.outputs[0].uses())


def _gathers(where: ir.Node) -> bool:
    return any(user.op_type.startswith("CtxGather") for user, _ in where.outputs[0].uses())


def ranges(model: ir.Model) -> list[ir.Node]:
    """The row numbers that masks compare."""
    compared = {id(node) for mask in masks(model) for node in behind(mask.inputs)}
    return [node for node in model.graph if node.op_type == "Range" and id(node) in compared]


def softmaxes(model: ir.Model) -> list[ir.Node]:
    """The softmaxes of attentions."""
    return [node for node in model.graph if node.op_type == "Softmax"]


def wrap(
    model: ir.Model,
    value: ir.Value,
    build: Build,
    only: Callable[[ir.Node, int], bool] = lambda node, index: True,
) -> bool:
    """Puts what ``build`` makes of ``value`` in its place, for the uses that ``only`` takes; whether there were any."""
    uses = [(node, index) for node, index in value.uses() if only(node, index)]
    if not uses:
        return False
    made: list[ir.Node] = []
    new = build(_writer(model, made), value)
    producer = value.producer()
    if producer is None:
        model.graph.insert_before(model.graph[0], made)
    else:
        model.graph.insert_after(producer, made)
    for node, index in uses:
        node.replace_input_with(index, new)
    model.graph.sort()
    return True


def _writer(model: ir.Model, made: list[ir.Node]) -> Op:
    def op(op_type: str, *operands: Any, **attributes: Any) -> ir.Value:
        values = [_operand(model, x, made) for x in operands]
        node = ir.Node("", op_type, values, ir.convenience.convert_attributes(attributes))
        node.name = f"mutant_{len(model.graph)}_{len(made)}_{op_type}"
        node.outputs[0].name = f"{node.name}_out"
        made.append(node)
        return node.outputs[0]

    return op


def _operand(model: ir.Model, x: Any, made: list[ir.Node]) -> ir.Value:
    if isinstance(x, ir.Value):
        return x
    array = x if isinstance(x, np.ndarray) else np.asarray(x, np.float32 if isinstance(x, float) else np.int64)
    node = ir.Node("", "Constant", [], [ir.AttrTensor("value", ir.tensor(array))])
    node.name = f"mutant_{len(model.graph)}_{len(made)}_constant"
    node.outputs[0].name = f"{node.name}_out"
    made.append(node)
    return node.outputs[0]


def on_logits(model: ir.Model, build: Build) -> bool:
    """The logits become what ``build`` makes of them."""
    return on_output(model, next(v for v in model.graph.outputs if v.name == "logits"), build)


def on_output(model: ir.Model, old: ir.Value, build: Build) -> bool:
    """An output becomes what ``build`` makes of it, under its name."""
    made: list[ir.Node] = []
    new = build(_writer(model, made), old)
    new.name, new.type, new.shape, old.name = old.name, old.type, old.shape, f"{old.name}_plain"
    for node in made:
        model.graph.append(node)
    outputs = model.graph.outputs
    outputs[[v is old for v in outputs].index(True)] = new
    return True


def on_hidden(model: ir.Model, build: Build) -> bool:
    """What the first attention of the last layer reads its queries from becomes what ``build`` makes of it."""
    weights = [n for n in model.graph if n.op_type == "MatMul" and "q_proj" in _weight(n)]
    value = weights[-1].inputs[0] if weights else None
    return value is not None and wrap(model, value, build)


def _weight(node: ir.Node) -> str:
    return (node.inputs[1].name or "") if len(node.inputs) > 1 and node.inputs[1] is not None else ""
