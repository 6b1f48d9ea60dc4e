"""Which operators may compute in half precision, and why others may not: proved from ranges, constants and types."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from ..core.constants import constant_of
from ..core.encoding import EncodingTable, Evidence
from ..core.operators import MS, of
from ..core.operators.walks import ADDED_UP, BOUNDED, FILLS_KEPT, TAKES_HALVES
from ..interface.places import places_of
from ..interface.projections import Part, fixed_values
from ..interface.roles import Role, find_roles
from ..shapes.float_values import element_types
from ..states import State
from .choose import HOST_SIDE, moved_from
from .grid import evidence_of
from .variants import Rules

LIMITS = {ir.DataType.FLOAT16: 65504.0, ir.DataType.BFLOAT16: float(np.frombuffer(b"\x00\x00\x7f\x7f", np.float32)[0])}
_TYPES = {ir.DataType.FLOAT16: "tensor(float16)", ir.DataType.BFLOAT16: "tensor(bfloat16)"}
_FLOAT = ir.DataType.FLOAT
UNKNOWN = "nothing tells the range of what it reads or gives"


@dataclass(eq=False)
class Split:
    """The operators that compute in half precision, and the others by reason, in graph order."""

    half: set[ir.Node] = field(default_factory=set[ir.Node])
    kept: dict[str, list[ir.Node]] = field(default_factory=dict[str, list[ir.Node]])


@dataclass(eq=False)
class _Context:
    model: ir.Model
    dtype: ir.DataType
    table: EncodingTable
    rules: Rules
    headroom: float
    types: Mapping[ir.Value, ir.DataType]
    content: set[ir.Value] = field(default_factory=set[ir.Value])
    fixed: set[ir.Value] = field(default_factory=set[ir.Value])
    norms: set[ir.Value] = field(default_factory=set[ir.Value])
    wide: set[ir.Value] = field(default_factory=set[ir.Value])
    pasts: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def limit(self) -> float:
        return LIMITS[self.dtype]

    @property
    def short(self) -> bool:
        """The type's exponents are fewer than float32's: ranges must be known."""
        return self.dtype is ir.DataType.FLOAT16

    def seen(self, value: ir.Value) -> Evidence | None:
        """What a value was seen to hold, be it under the name of what it was moved from."""
        for own in moved_from(value):
            name = self.pasts.get(own, own)
            if name in self.table.ranges and self.table.ranges[name].usable:
                return self.table.ranges[name]
            known = self.table.encodings.get(name)
            if known is not None and known.scale:
                return evidence_of(known)
        return None


def split_for_half(
    model: ir.Model, states: list[State], table: EncodingTable, dtype: ir.DataType, rules: Rules, headroom: float
) -> Split:
    """Every operator of the main graph with floats, in half precision or kept, each for the first reason that holds."""
    types = element_types(model)
    context = _Context(model, dtype, table, rules, headroom, types, fixed=fixed_values(model.graph))
    roles = find_roles(model, states)
    context.content = {v for v in model.graph.inputs if roles.get(v.name or "", Role.OTHER) not in HOST_SIDE}
    context.pasts = {s.input.name or "": s.output.name or "" for s in states if s.input and s.output}
    context.norms = {v for v, place in places_of(model, states).values.items() if Part.NORM in place.parts}
    context.wide = {v for v in model.graph.inputs if types.get(v) is _FLOAT and v not in context.content}
    found = Split()
    for node in model.graph:
        if any(v in context.content for v in node.inputs if v is not None) and not of(node).sizes:
            context.content.update(node.outputs)
        _widen(context, node)
        if not any(context.types.get(v) is _FLOAT for v in node.outputs) or node.op_type == "Constant":
            continue
        reason = next((why for rule in _RULES if (why := rule(context, node))), "")
        if reason:
            found.kept.setdefault(reason, []).append(node)
        else:
            found.half.add(node)
    _leave_constants(context, found)
    return found


def _widen(context: _Context, node: ir.Node) -> None:
    """Numbers beyond the type's go on through what moves and combines them, and end in what is bounded."""
    inputs = [v for v in node.inputs if v is not None and context.types.get(v) is _FLOAT]
    for value in inputs:
        tensor = constant_of(value)
        if tensor is not None and value not in context.wide and tensor.size < 1 << 16:
            numbers = tensor.numpy()
            if numbers.size and float(np.abs(numbers).max()) > context.limit:
                context.wide.add(value)
    row = of(node)
    goes_on = row.elementwise or node.op_type in FILLS_KEPT
    if goes_on and node.op_type not in BOUNDED and any(v in context.wide for v in inputs):
        context.wide.update(node.outputs)


def _leave_constants(context: _Context, found: Split) -> None:
    """What is computed of weights alone is half only where something half reads it."""
    for node in reversed(context.model.graph):
        if node not in found.half or not context.fixed.issuperset(node.outputs):
            continue
        readers = [user for value in node.outputs for user, _ in value.uses()]
        if not any(user in found.half for user in readers):
            found.half.discard(node)
            found.kept.setdefault("nothing in half precision reads it", []).append(node)


def _asked(context: _Context, node: ir.Node) -> str:
    return "asked by keep" if context.rules.keeps(node) else ""


def _bodies(context: _Context, node: ir.Node) -> str:
    if node.op_identifier() in context.model.functions:
        return "a local function computes as its body says"
    return "a branch or loop computes as its body says" if of(node).bodies else ""


def _typed(context: _Context, node: ir.Node) -> str:
    told = any(node.attributes.get(name) is not None for name in ("to", "dtype"))
    return "it says itself that it gives float32" if told else ""


def _host(context: _Context, node: ir.Node) -> str:
    """Positions beyond 2048 are no halves, and masks hold numbers that are none."""
    content = any(value in context.content for value in node.outputs)
    if content:
        return ""
    if not context.fixed.issuperset(node.outputs):
        return "it depends on positions and masks alone: indices beyond 2048 and mask fills are no halves"
    moves = of(node).moves or node.op_type == "DequantizeLinear"
    return "" if moves else "it is computed of constants, before the run"


def _norm(context: _Context, node: ir.Node) -> str:
    inside = any(value in context.norms for value in node.outputs) or (of(node).norm and node.op_type != "Pow")
    return "a norm: it squares and sums hidden states" if inside else ""


def _sum(context: _Context, node: ir.Node) -> str:
    return "a sum over an axis" if node.op_type in ADDED_UP else ""


def _attention(context: _Context, node: ir.Node) -> str:
    return "an attention: nothing watched the scores inside" if of(node).attention else ""


def _untyped(context: _Context, node: ir.Node) -> str:
    taken = _takes(node.domain, node.op_type, context.model.graph.opset_imports.get(node.domain, 1), context.dtype)
    return "" if taken else f"no schema says that it takes {context.dtype.name.lower()}"


def _mask(context: _Context, node: ir.Node) -> str:
    touched = any(v in context.wide for v in (*node.inputs, *node.outputs) if v is not None)
    return f"numbers beyond {context.limit:g}, as masks hold them, would be infinite" if touched else ""


def _range(context: _Context, node: ir.Node) -> str:
    """The numbers that were seen, with room for texts that the calibration did not see."""
    if not context.short:
        return ""
    for value in (*node.inputs, *node.outputs):
        if value is None or context.types.get(value) is not _FLOAT or value in context.fixed:
            continue
        seen = context.seen(value)
        if seen is None:
            return UNKNOWN
        if max(abs(seen.low), abs(seen.high)) * context.headroom > context.limit:
            return f"its range passes {context.limit:g} / {context.headroom:g}"
    return ""


def _constants(context: _Context, node: ir.Node) -> str:
    """Weights and constants that the type cannot hold, or that would be 0 in it."""
    for value in node.inputs:
        tensor = constant_of(value) if value is not None and context.types.get(value) is _FLOAT else None
        if tensor is None or not tensor.size:
            continue
        numbers = tensor.numpy()
        if not np.isfinite(numbers).all() or float(np.abs(numbers).max()) > context.limit:
            return f"a weight beyond {context.limit:g}"
        if (
            tensor.size == 1
            and float(numbers.reshape(-1)[0]) != 0.0
            and not numbers.astype(context.dtype.numpy()).any()
        ):
            return "a constant that would be 0"
    return ""


_RULES: tuple[Callable[[_Context, ir.Node], str], ...] = (
    _asked, _bodies, _typed, _host, _norm, _sum, _attention, _untyped, _mask, _range, _constants,
)  # fmt: skip


@functools.lru_cache(maxsize=1024)
def _takes(domain: str, op_type: str, version: int, dtype: ir.DataType) -> bool:
    """Whether every float operand and result of the operator may be of the type."""
    if domain == MS:
        return op_type in TAKES_HALVES and dtype is ir.DataType.FLOAT16
    try:
        schema = onnx.defs.get_schema(op_type, version, "" if domain == "ai.onnx" else domain)
    except onnx.defs.SchemaError:
        return False
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    ports = [*schema.inputs, *schema.outputs]
    floats = [allowed.get(port.type_str, {port.type_str}) for port in ports]
    return all(_TYPES[dtype] in types for types in floats if "tensor(float)" in types)
