"""fix-opset: the graph is written for one version of ai.onnx."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx
import onnx_ir as ir

from ..ir.core.errors import PassRefused
from ..ir.core.scopes import all_nodes
from ..ir.manifests.targets import introduced
from ..ir.program.contracts.lowered import contracts_of
from ..ir.rewrite.convert.opset import raise_opset
from ..ir.rewrite.lower import lower_graph
from .base import GraphResult, Pass


@dataclass(frozen=True)
class FixOpset(Pass):
    """Writes the graph for the ai.onnx version that a compiler wants.

    Before → after::

        opset 24: y = Swish(RMSNormalization(x, w))   →   opset 20: Mul, ReduceMean, Add, Sqrt, Div, Mul, Sigmoid, Mul

    1. Up: onnxscript's converter, each node held against the newer schemas.
    2. Down: operators that the version does not have are spelled out as ``lower`` does; every other node must fit the
       older schema: as many inputs, the same attributes with the same defaults, element types that it takes.

    Refused, with nothing changed: a node whose form the older version does not have, graphs with local functions.

    Attributes:
        version: The ai.onnx version wanted.
    """

    name: ClassVar[str] = "fix-opset"

    version: int

    def call(self, model: ir.Model) -> GraphResult:
        """Changes one graph's version; raises PassRefused."""
        found = model.opset_imports.get("", 0)
        if found == self.version:
            return GraphResult(model, False)
        if found < self.version:
            raise_opset(model, self.version, self.name)
            return GraphResult(model, True, counts={f"opset {found} to {self.version}": 1})
        if model.functions:
            raise PassRefused(
                "local functions keep their own versions", where=self.name, hint="Run ir-inline before it."
            )
        self._down(model.clone(), found)
        return self._down(model, found)

    def _down(self, model: ir.Model, found: int) -> GraphResult:
        lowered = lower_graph(
            model,
            lambda node: bool(node.domain) or introduced(node.op_type) <= self.version,
            owner=self.name,
            opset=self.version,
        )
        for node in all_nodes(model):
            if not node.domain and (why := _misfit(node, self.version, found)):
                raise PassRefused(
                    f"{node.op_type} has no such form in opset {self.version}",
                    where=f"{self.name}, node {node.name!r}",
                    found=why,
                )
        model.graph.opset_imports[""] = self.version
        counts = {f"opset {found} to {self.version}": 1, **lowered.counts}
        contracts = contracts_of(lowered.tolerance, lowered.right_padded, lowered.whole_pasts) if lowered.counts else ()
        return GraphResult(model, True, counts=counts, contracts=contracts)


def _misfit(node: ir.Node, version: int, found: int) -> str:
    """Why a node does not mean the same in an older version; empty where it does."""
    try:
        old, new = (onnx.defs.get_schema(node.op_type, opset, "") for opset in (version, found))
    except onnx.defs.SchemaError:
        return "no schema"
    if old.since_version == new.since_version:
        return ""
    if len(node.inputs) > old.max_input or not old.min_input <= len(node.inputs):
        return f"{len(node.inputs)} inputs"
    for name in node.attributes:
        if name not in old.attributes:
            return f"attribute {name}"
    for name, attribute in old.attributes.items():
        other = new.attributes.get(name)
        if name not in node.attributes and (other is None or other.default_value != attribute.default_value):
            return f"another default of {name}"
    return _types_misfit(node, old)


def _types_misfit(node: ir.Node, schema: onnx.defs.OpSchema) -> str:
    allowed = {row.type_param_str: set(row.allowed_type_strs) for row in schema.type_constraints}
    for formal, value in zip(schema.inputs, node.inputs, strict=False):
        dtype = value.dtype if value is not None else None
        spelled = f"tensor({_SPELLED.get(dtype.name, dtype.name.lower())})" if dtype is not None else ""
        if spelled and spelled not in allowed.get(formal.type_str, {spelled, formal.type_str}):
            return spelled
    return ""


_SPELLED = {"FLOAT": "float", "DOUBLE": "double", "BOOL": "bool"}
