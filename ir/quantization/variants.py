"""One table says how each operator is quantized, with entries of prefill or decode where they differ."""

from __future__ import annotations

import enum
import fnmatch
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from ..core.errors import PassRefused, UnknownNameError
from ..core.operators import OPERATORS, names
from ..core.operators import Grids as Ports
from ..core.scopes import all_nodes


class Variant(enum.Enum):
    """What kind of graph an operator stands in."""

    COMMON = "common"
    PREFILL = "prefill"
    DECODE = "decode"


RULES: dict[tuple[str, Variant], Ports] = {
    (name, Variant.COMMON): row.grids for (_, name), row in OPERATORS.items() if row.grids is not None
}
"""Operator type and variant -> which ports; encodings themselves are stored once for all variants."""

_NO_RULE = names(lambda row: row.quantizes or row.dequantizes or row.bodies)  # grids, or graphs of their own


def rule_of(op_type: str, variant: Variant = Variant.COMMON, own: Mapping[str, Ports] | None = None) -> Ports:
    """The entry of exactly this variant, else the common one; PassRefused, naming the operator, where neither is.

    ``own`` are entries of this variant that stand before those of the table.
    """
    found = _resolve(op_type, variant, own or {})
    if found is None:
        raise PassRefused(
            f"no rule says how {op_type} is quantized",
            found=f"variant {variant.value}",
            hint=f"Leave it in float with keep={op_type}, or give it one with rules={op_type}:all.",
        )
    return found


def _resolve(op_type: str, variant: Variant, own: Mapping[str, Ports]) -> Ports | None:
    return own.get(op_type) or RULES.get((op_type, variant)) or RULES.get((op_type, Variant.COMMON))


def add_rule(op_type: str, ports: Ports, variant: Variant = Variant.COMMON) -> None:
    """Adds an entry; PassRefused where this operator has one of this variant already."""
    if (op_type, variant) in RULES:
        raise PassRefused(f"{op_type} has a rule already", found=f"variant {variant.value}")
    RULES[op_type, variant] = ports


@functools.lru_cache(maxsize=64)
def _matcher(patterns: tuple[str, ...]) -> Callable[[str], object]:
    """Tells names that one of the patterns matches; brackets are part of a name, as exporters write them."""
    return re.compile("|".join(fnmatch.translate(text.replace("[", "[[]")) for text in patterns)).match


@dataclass(frozen=True)
class Rules:
    """What one run goes by: whose entries count, entries of its own, and the nodes that stay in float."""

    variant: Variant = Variant.COMMON
    own: Mapping[str, Ports] = field(default_factory=dict[str, Ports])
    keep: tuple[str, ...] = ()

    def keeps(self, node: ir.Node | None) -> bool:
        """True for a node that stays in float, by its name or its type; `*` and `?` stand for any characters."""
        if node is None or not self.keep:
            return False
        matches = _matcher(self.keep)
        return bool(matches(node.name or "") or matches(node.op_type))

    def check_keep(self, models: Iterable[ir.Model], *, where: str) -> None:
        """Raises UnknownNameError for an entry of ``keep`` that no node of any graph has as its name or its type."""
        nodes = [node for model in models for node in all_nodes(model)]
        known = {node.name or "" for node in nodes} | {node.op_type for node in nodes}
        for entry in self.keep:
            if not any(map(_matcher((entry,)), known)):
                raise UnknownNameError("node or operator", entry, sorted(known - {""}), where=f"{where}, keep")

    def check(self, model: ir.Model, node: ir.Node) -> None:
        """Refuses an operator without a rule; a call of a function reads and gives grids, its body stays as it is."""
        if node.op_type in _NO_RULE or node.op_identifier() in model.functions:
            return
        try:
            rule_of(node.op_type, self.variant, self.own)
        except PassRefused as error:
            raise PassRefused(error.what, where=node.name or "", found=error.found, hint=error.hint) from None

    def reads(self, node: ir.Node) -> bool:
        """True for a node that reads numbers on their grids: one that is not kept, and whose rule covers its inputs."""
        if node.op_type == "Shape" or self.keeps(node):
            return False
        return _resolve(node.op_type, self.variant, self.own) is not Ports.OUTPUTS
