"""What a target's compiler takes of a graph: operators, types and forms, each row with its source and date."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
import onnx_ir as ir

NOWHERE = 1 << 30  # the version that brought an operator which ai.onnx does not have
MS = "com.microsoft"


@dataclass(frozen=True)
class Source:
    """Where a row comes from: a document or a run, with the version it speaks of, and the day it was read or run."""

    text: str
    date: str


@dataclass(frozen=True)
class Rule:
    """One operator that a target takes or refuses against its general rule.

    Attributes:
        operator: The type, with its domain in front where that is not ai.onnx: ``com.microsoft.MatMulNBits``.
        taken: Whether it is taken.
        needs: Inputs, by place, without which it is refused though it is taken otherwise.
        attributes: Values that an attribute must have, or else it is refused.
        dtypes: Element types of the first input that it is taken for; empty for any.
        source: What says so.
        why: What else to tell a user.
    """

    operator: str
    taken: bool
    source: Source
    needs: tuple[int, ...] = ()
    attributes: Mapping[str, int | str] = field(default_factory=dict[str, "int | str"])
    dtypes: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class TargetTable:
    """What one target's compiler takes.

    Attributes:
        name: The target's name in pipeline text.
        version: Of the compiler that the rows speak of.
        opset: The newest ai.onnx opset whose operators are taken; 0 for the graph's own.
        source: What says so.
        domains: Domains whose operators are taken as they are.
        functions: Whether local functions are taken.
        control_flow: Whether If and Loop are.
        dynamic: Whether dimensions may stay open.
        max_rank: The most axes of a tensor, None for any number.
        empty_inputs: Whether an input may have length zero.
        int64_inputs: Whether graph inputs of 64-bit integers are taken.
        qdq16: Whether pairs on 16-bit grids are computed as the operators say.
        max_bytes: The largest graph file, None for 2 GiB, which no ONNX file exceeds.
        reads_nothing: Whether the index INT32_MAX reads zeros and writes nothing.
        rules: Operators that differ.
        limits: The source of each limit above, by its name.
    """

    name: str
    version: str
    opset: int
    source: Source
    domains: frozenset[str] = frozenset()
    functions: bool = False
    control_flow: bool = True
    dynamic: bool = True
    max_rank: int | None = None
    empty_inputs: bool = True
    int64_inputs: bool = True
    qdq16: bool = True
    max_bytes: int | None = None
    reads_nothing: bool = False
    rules: tuple[Rule, ...] = ()
    limits: Mapping[str, Source] = field(default_factory=dict[str, Source])

    def refuses(self, node: ir.Node, opset: int) -> str:
        """Why the target does not take an operator in a graph of version ``opset``; empty where it does."""
        rule = self.rule(node.domain, node.op_type)
        return _broken(rule, node) if rule is not None else self.refuses_all(node.domain, node.op_type, opset)

    def rule(self, domain: str, op_type: str) -> Rule | None:
        """What is special about an operator: whether a node of it is taken depends on the node."""
        return self._rules.get(f"{domain}.{op_type}" if domain else op_type)

    def refuses_all(self, domain: str, op_type: str, opset: int) -> str:
        """Why no node of an operator without a rule is taken; empty where every one is."""
        if domain:
            return "" if domain in self.domains else f"{self.name} has no operators of domain {domain}"
        newest = self.opset or opset
        since = introduced(op_type)
        if since == NOWHERE:
            return "ai.onnx has no such operator"
        return "" if since <= newest else f"it is of opset {since}, and {self.name} takes operators up to {newest}"

    @functools.cached_property
    def _rules(self) -> dict[str, Rule]:
        return {rule.operator: rule for rule in self.rules}


def spelled(node: ir.Node) -> str:
    """The operator with its domain, where that is not ai.onnx."""
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _broken(rule: Rule, node: ir.Node) -> str:
    if not rule.taken:
        return rule.why or f"{rule.source.text} says so"
    for place in rule.needs:
        if place >= len(node.inputs) or node.inputs[place] is None:
            return rule.why or f"input {place} must be there"
    for name, value in rule.attributes.items():
        attribute = node.attributes.get(name)
        if attribute is not None and attribute.value != value:
            return rule.why or f"{name} must be {value}"
    first = node.inputs[0] if node.inputs else None
    if rule.dtypes and first is not None and first.dtype is not None and first.dtype.name not in rule.dtypes:
        return rule.why or f"{first.dtype.name} is not among {', '.join(rule.dtypes)}"
    return ""


@functools.cache
def introduced(op_type: str) -> int:
    """The opset that brought an operator of ai.onnx; a large number where there is none."""
    return _first_versions().get(op_type, NOWHERE)


@functools.cache
def _first_versions() -> dict[str, int]:
    found: dict[str, int] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain:
            found[schema.name] = min(schema.since_version, found.get(schema.name, NOWHERE))
    return found
