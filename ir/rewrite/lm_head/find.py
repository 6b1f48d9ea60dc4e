"""Finds the language-model head: the product with the vocabulary that a graph output comes from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ...core.errors import PassRefused
from ...interface.roles import Role, find_tables
from ...shapes.infer import Facts
from ...states import State
from ...symbolic.dims import Dim
from .ops import ELEMENTWISE, HEADS, LAYOUT, NORMS, QUANTIZE, SELECTIONS, is_constant, key_of

MAX_TAIL = 200  # nodes between the head and the output
MIN_VOCABULARY = 16


@dataclass(eq=False)
class Tokens:
    """The input that tells how many tokens a run has: ``value`` is ``[batch, length]``, or has a width too."""

    value: ir.Value
    batch: Dim
    length: Dim


WORDS = "onnx_llm_passes.words"
"""The metadata by which a graph tells how many words its head was left."""
MAX_DIGITS = 10


@dataclass(eq=False)
class LmHead:
    """``output`` holds the logits; ``node`` multiplies rows (operand ``port``) with the vocabulary.

    ``node`` is a call where the product stands alone in a local function.
    """

    output: ir.Value
    node: ir.Node
    port: int
    vocabulary: int

    @property
    def rows(self) -> ir.Value:
        """The operand."""
        value = self.node.inputs[self.port]
        assert value is not None, "a product has both operands"
        return value


def head_tokens(model: ir.Model, roles: Mapping[str, Role], facts: Facts) -> Tokens | None:
    """The token ids or embeddings of the graph; None where there are none of rank 2 or more."""
    for role in (Role.TOKEN_IDS, Role.EMBEDDINGS):
        for value in model.graph.inputs:
            shape = facts.shape(value)
            if roles.get(value.name or "") is role and shape is not None and len(shape) >= 2:
                return Tokens(value, shape[0], shape[1])
    return None


def find_head(model: ir.Model, owner: str, states: Sequence[State], roles: Mapping[str, Role], facts: Facts) -> LmHead:
    """The one head of the graph; raises PassRefused, with what the search stumbled on, where there is none or several.

    Function calls that hold more than the head are refused as a class of their own: :class:`InFunction`.
    """
    where = f"{owner}, graph {model.graph.name!r}"
    outputs = _candidates(model, states, roles, facts)
    if not outputs:
        raise PassRefused(
            "no output holds logits over a vocabulary",
            where=where,
            found=", ".join(str(value.name) for value in _others(model, states)) or "only states",
            wanted="an output whose last dimension is the vocabulary's",
            hint="An encoder or embedder has no such head and needs no change.",
        )
    heads: list[LmHead] = []
    stumbled: list[ir.Node] = []
    for output, vocabulary in outputs:
        found, stopped = _trace(model, output, vocabulary, facts)
        heads.extend(found)
        stumbled.extend(stopped)
    if len(heads) == 1:
        return heads[0]
    calls = [node for node in stumbled if node.op_identifier() in model.functions]
    if not heads and calls:
        raise InFunction(calls, where)
    _refuse(where, heads, stumbled)
    raise AssertionError("unreachable")


def find_logits(
    model: ir.Model, owner: str, states: Sequence[State], roles: Mapping[str, Role], facts: Facts
) -> tuple[ir.Value, int]:
    """The output that holds logits, and how many; raises PassRefused where there is none or several."""
    outputs = _candidates(model, states, roles, facts)
    if len(outputs) != 1:
        raise PassRefused(
            "no output holds logits over a vocabulary" if not outputs else "several outputs hold logits",
            where=f"{owner}, graph {model.graph.name!r}",
            found=", ".join(str(value.name) for value in _others(model, states)) or "only states",
            wanted="one output whose last dimension is the vocabulary's",
            hint="An encoder or embedder chooses no tokens.",
        )
    return outputs[0]


class InFunction(PassRefused):
    """The head lies inside functions together with other work; ``names`` are theirs."""

    def __init__(self, calls: Sequence[ir.Node], where: str) -> None:
        self.names = {node.op_identifier() for node in calls}
        text = ", ".join(sorted({f"{node.domain}::{node.op_type}" for node in calls}))
        super().__init__("the head lies inside local functions", where=where, found=text, hint="Put ir-inline first.")


def _refuse(where: str, heads: Sequence[LmHead], stumbled: Sequence[ir.Node]) -> None:
    if len(heads) > 1:
        raise PassRefused(
            "several products with the vocabulary feed the logits",
            where=where,
            found=", ".join(f"{head.node.op_type} {head.node.name!r}" for head in heads[:4]),
            wanted="one head",
            hint="Graphs with several heads (drafting models) keep all their rows.",
        )
    branch = next((node for node in stumbled if node.op_type == "If"), None)
    if branch is not None:
        raise PassRefused(
            f"the head lies inside a branch of If {branch.name!r}",
            where=where,
            wanted="a graph with the branch chosen",
            hint="Put select-branch{input=NAME value=true|false} before this pass; NAME is the If's boolean input.",
        )
    node = stumbled[0] if stumbled else None
    raise PassRefused(
        "no product with a constant weight is found behind the logits",
        where=where,
        found=f"{node.op_type} {node.name!r}" if node is not None else "nothing",
        wanted="a MatMul, Gemm, Conv or quantized product, then operators that keep rows apart",
        hint="`onnx-passes inspect` shows the outputs; a graph without a vocabulary needs no change.",
    )


def _others(model: ir.Model, states: Sequence[State]) -> list[ir.Value]:
    carried = {state.output for state in states}
    return [value for value in model.graph.outputs if value not in carried]


def _candidates(
    model: ir.Model, states: Sequence[State], roles: Mapping[str, Role], facts: Facts
) -> list[tuple[ir.Value, int]]:
    """Float outputs as wide as the vocabulary that token ids look up; without such ids, what is called logits."""
    tables = [size for name, size in find_tables(model).items() if roles.get(name) is Role.TOKEN_IDS]
    least = max(max(tables) // 2, 2) if tables else MIN_VOCABULARY
    tables, least = _fewer_words(model, tables, least)
    found: list[tuple[ir.Value, int]] = []
    for value in _others(model, states):
        width = _width(value, facts)
        if value.dtype is None or not value.dtype.is_floating_point() or width is None or width < least:
            continue
        if tables or "logits" in (value.name or "") or _is_wide(model, width):
            found.append((value, width))
    exact = [(value, width) for value, width in found if width in tables] or found
    named = [(value, width) for value, width in exact if "logits" in (value.name or "")]
    return named or exact


def _fewer_words(model: ir.Model, tables: list[int], least: int) -> tuple[list[int], int]:
    """The widths of a whole vocabulary and the least of logits, or those of a head that has only chosen words."""
    words = model.metadata_props.get(WORDS, "")
    return ([int(words)], int(words)) if words.isdecimal() and 0 < len(words) < MAX_DIGITS else (tables, least)


def mark_words(model: ir.Model, words: int) -> None:
    """Lets the graph tell that its head has only so many words: the logits are no longer as wide as the embedding."""
    model.metadata_props[WORDS] = str(words)


def _is_wide(model: ir.Model, width: int) -> bool:
    """Wider than every input: embeddings in, vocabulary out."""
    widths = [v.shape[-1] for v in model.graph.inputs if v.shape is not None and len(v.shape) > 1]
    return all(width > other for other in widths if isinstance(other, int))


def _width(value: ir.Value, facts: Facts) -> int | None:
    shape = facts.shape(value)
    if shape and isinstance(shape[-1], int):
        return shape[-1]
    declared = value.shape[-1] if value.shape is not None and len(value.shape) else None
    return declared if isinstance(declared, int) else None


def _trace(model: ir.Model, output: ir.Value, width: int, facts: Facts) -> tuple[list[LmHead], list[ir.Node]]:
    """The products behind ``output``, and the nodes where the search ended otherwise."""
    heads: dict[ir.Node, LmHead] = {}
    stopped: list[ir.Node] = []
    for node in _behind(output):
        key = key_of(node)
        function = model.functions.get(node.op_identifier())
        port = _port_of_call(function, node) if function is not None else _port_of(node)
        if port is not None:
            if 2 * (_width(node.outputs[0], facts) or width) >= width:
                heads[node] = LmHead(output, node, port, width)
        elif key not in PASSES_ON:
            stopped.append(node)
    return list(heads.values()), stopped


PASSES_ON = ELEMENTWISE | LAYOUT | NORMS | QUANTIZE | SELECTIONS


def _behind(output: ir.Value) -> list[ir.Node]:
    """The nodes that ``output`` comes from, as far back as rows are kept apart."""
    seen: dict[ir.Node, None] = {}
    work = [output]
    while work and len(seen) < MAX_TAIL:
        node = work.pop().producer()
        if node is None or node in seen:
            continue
        seen[node] = None
        if key_of(node) in PASSES_ON and _port_of(node) is None:
            carriers = node.inputs if key_of(node) in ELEMENTWISE else node.inputs[:1]
            work.extend(value for value in carriers if value is not None and not is_constant(value))
    return list(seen)


def _port_of(node: ir.Node, formals: Collection[ir.Value] = ()) -> int | None:
    """The operand of rows of a product with a constant weight; None for every other node."""
    ports = HEADS.get(key_of(node))
    if ports is None or len(node.inputs) <= max(ports):
        return None
    data, weight = ports
    return data if is_constant(node.inputs[weight], formals) and not is_constant(node.inputs[data], formals) else None


def _port_of_call(function: ir.Function, call: ir.Node) -> int | None:
    """The operand of rows of a call whose body is a head and nothing that mixes rows; None for every other call."""
    fixed = [f for f, given in zip(function.inputs, call.inputs, strict=False) if is_constant(given)]
    work, heads, seen = list(function.outputs), list[ir.Node](), set[ir.Node]()
    while work:
        node = work.pop().producer()
        if node is None or node in seen:
            continue
        seen.add(node)
        if _port_of(node, fixed) is not None:
            heads.append(node)
        elif key_of(node) not in ELEMENTWISE:
            return None
        else:
            work.extend(value for value in node.inputs if value is not None and not is_constant(value, fixed))
    if len(heads) != 1 or len(function.outputs) != 1 or key_of(heads[0]) in HEADS.keys() - {("", "MatMul")}:
        return None
    if len(fixed) != len(call.inputs) - 1:
        return None
    rows = heads[0].inputs[0]
    return next((at for at, formal in enumerate(function.inputs) if formal is rows), None)
