"""The consumers of a graph input say what it is: their events are collected along every path that keeps its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from ..core.constants import constant_of
from ..core.operators import ALL, OPERATORS, names, of
from ..core.operators.walks import ORDERS, WEIGHT_DERIVED

MAX_CALLS = 16  # functions inside functions
MAX_STEPS = 200  # of a search back to a Range


@dataclass(eq=False)
class UsageFacts:
    """What the consumers of one input tell; ``tables`` are the row counts of the constant ``sources`` it looks up."""

    value: ir.Value
    events: set[str] = field(default_factory=set[str])
    tables: set[int] = field(default_factory=set[int])
    sources: set[ir.Value] = field(default_factory=set[ir.Value])

    @property
    def rank(self) -> int:
        """How many dimensions; -1 where the shape is unknown."""
        return len(self.value.shape) if self.value.shape is not None else -1

    @property
    def single(self) -> bool:
        """True where the shape holds exactly one element."""
        return self.value.shape is not None and all(dim == 1 for dim in self.value.shape)


def usage_of(model: ir.Model, value: ir.Value) -> UsageFacts:
    """Follows the input into functions and subgraphs; only on a mask's way to softmax may logic change its numbers."""
    usage = UsageFacts(value)
    if value.uses() and all(use.node.op_type == "Shape" for use in value.uses()):
        usage.events.add("only its shape")
    is_float = value.dtype is not None and value.dtype.is_floating_point()
    _walk(model, usage, _MOVES if is_float else _NUMBERS)
    logic = UsageFacts(value)
    _walk(model, logic, _LOGIC)
    usage.events |= logic.events & {"mask"}
    return usage


def origins(values: Iterable[ir.Value | None]) -> set[ir.Value]:
    """The graph inputs from whose numbers (not shapes) these values are computed."""
    found: set[ir.Value] = set()
    seen: set[ir.Value] = set()
    work = [value for value in values if value is not None]
    while work:
        value = work.pop()
        if value in seen:
            continue
        seen.add(value)
        node = value.producer()
        if node is None:
            found.add(value)
        elif node.op_type in _NUMBERS:
            work.extend(node.inputs[port] for port in _ports(node, _NUMBERS) if node.inputs[port] is not None)  # pyright: ignore[reportArgumentType]
    return found


# Operators through which an input's numbers stay recognizable, and the operands that carry them (None: all).
_Carriers = Mapping[str, tuple[int, ...] | None]


def _every(ports: tuple[int, ...]) -> tuple[int, ...] | None:
    return None if ports == ALL else ports


_MOVES: _Carriers = {name: _every(row.numbers) for (_, name), row in OPERATORS.items() if row.numbers}
_NUMBERS: _Carriers = {**_MOVES, **dict.fromkeys(names(lambda row: row.product and row.product.pairs))}
_LOGIC: _Carriers = {
    name: _every(row.truth or row.numbers) for (_, name), row in OPERATORS.items() if row.truth or row.numbers
}

# (operator, operand) -> what its consuming an input tells; operators of one name are taken for each other
_SINKS: Mapping[tuple[str, int], str] = {
    (name, port): use for (_, name), row in OPERATORS.items() for port, use in row.uses().items()
}
_NORMS = names(lambda row: row.norm, None)


def _ports(node: ir.Node, carriers: _Carriers) -> tuple[int, ...]:
    ports = carriers[node.op_type]
    return tuple(range(len(node.inputs))) if ports is None else tuple(p for p in ports if p < len(node.inputs))


def _walk(model: ir.Model, usage: UsageFacts, carriers: _Carriers) -> None:
    """Follows the input through ``carriers`` into functions and subgraphs; notes what each other consumer tells.

    An element of the work list is a value, the calls it is inside of, and whether it passed a Concat as first operand.
    """
    work: list[tuple[ir.Value, tuple[ir.Node, ...], bool]] = [(usage.value, (), False)]
    seen: set[tuple[ir.Value, tuple[ir.Node, ...], bool]] = set()
    while work:
        item = work.pop()
        if item in seen:
            continue
        seen.add(item)
        value, calls, first = item
        for use in value.uses():
            function = model.functions.get(use.node.op_identifier())
            if function is not None and use.idx < len(function.inputs) and len(calls) < MAX_CALLS:
                work.append((function.inputs[use.idx], (*calls, use.node), first))
                continue
            _note(usage, use.node, use.idx, first)
            if use.node.op_type in carriers and use.idx in _ports(use.node, carriers):
                leads = use.node.op_type == "Concat" and use.idx == 0 and len(use.node.inputs) > 1
                work.extend((output, calls, first or leads) for output in use.node.outputs)
        if calls:
            work.extend((output, calls[:-1], first) for output in _call_outputs(model, value, calls[-1]))


def _call_outputs(model: ir.Model, value: ir.Value, call: ir.Node) -> list[ir.Value]:
    outputs = model.functions[call.op_identifier()].outputs
    return [call.outputs[i] for i, inner in enumerate(outputs) if inner is value and i < len(call.outputs)]


def _note(usage: UsageFacts, node: ir.Node, port: int, first: bool) -> None:
    event = _SINKS.get((node.op_type, port), "")
    if event == "slot" and first:
        event = "row"  # the first column of scatter indices chooses the cache's row
    if node.op_type in ORDERS and any(_from_range(other) for i, other in enumerate(node.inputs) if i != port):
        event = "compare"
    if node.op_type in _NORMS:
        event = "norm"
    if event == "projection":
        usage.events.add(f"projection {node.name or id(node)}")
    if event == "convolution" and (_kernel_rank(node) or 0) > 3:
        usage.events.add("picture")  # taps along two axes or more: with one it is sound, or frames
    if event:
        usage.events.add(event)
    lookup = of(node).lookup
    if lookup is not None and port == lookup.indices:
        _note_lookup(usage, node.inputs[lookup.table])


def _kernel_rank(node: ir.Node) -> int | None:
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    constant = constant_of(weight)
    shape = weight.shape if weight is not None and weight.shape is not None else None
    return len(shape) if shape is not None else len(constant.shape) if constant is not None else None


def _note_lookup(usage: UsageFacts, table: ir.Value | None) -> None:
    source, turned = _table(table)
    rows = _table_rows(source, turned)
    if rows is not None and source is not None:
        usage.tables.add(rows)
        usage.sources.add(source)


def _table(value: ir.Value | None) -> tuple[ir.Value | None, bool]:
    """What lies behind casts and such of ``value``, and whether rows and columns were exchanged on the way."""
    turned = False
    for _ in range(8):
        node = value.producer() if value is not None else None
        if node is None or node.op_type not in WEIGHT_DERIVED or not node.inputs:
            break
        turned ^= node.op_type == "Transpose"
        value = node.inputs[0]
    return value, turned


def _table_rows(value: ir.Value | None, turned: bool) -> int | None:
    """The rows of a constant table of rank 2 or more; None where ``value`` is none."""
    constant = constant_of(value)
    shape = constant.shape if constant is not None else None
    if shape is None or len(shape) < 2:
        return None
    rows = shape[-1 if turned else 0]
    return rows if isinstance(rows, int) else None


def _from_range(value: ir.Value | None) -> bool:
    """True where the value is 0, 1, 2 … (Range or CumSum), moved and shifted."""
    work, seen = [value], set[ir.Value]()
    while work and len(seen) < MAX_STEPS:
        current = work.pop()
        node = current.producer() if current is not None else None
        if current is None or node is None or current in seen:
            continue
        seen.add(current)
        if node.op_type == "Range":
            return True
        if node.op_type in _MOVES:
            work.extend(node.inputs[port] for port in _ports(node, _MOVES))
    return False
