"""Typed facts say what a graph is: inputs with roles, states, symbols, sizes; ``inspect`` and ``diff`` read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ..ir.symbolic.dims import free_symbols, substitute

if TYPE_CHECKING:
    import onnx_ir as ir

    from ..ir.interface.roles import Role
    from ..ir.states.base import State

Dims = tuple["int | str | None", ...]


@dataclass(frozen=True)
class ValueFacts:
    """An input or output: element type (None where unknown) and dimensions: numbers, symbols, None where unknown."""

    name: str
    dtype: str | None
    shape: Dims | None


@dataclass(frozen=True)
class InputFacts(ValueFacts):
    """An input and what it is for."""

    role: str


@dataclass(frozen=True)
class StateFacts:
    """A carried state: its ends, how it is updated, and its bytes where every size is known."""

    name: str
    layer: int | None
    kind: str
    layout: str
    axis: int | None
    pairing: str
    input: str | None
    output: str | None
    dtype: str | None
    shape: Dims | None
    symbols: tuple[str, ...]
    bytes: int | None
    evidence: str


@dataclass(frozen=True)
class Unpaired:
    """An input and an output that look like a state and are not understood as one."""

    input: str
    output: str


@dataclass(frozen=True)
class SymbolFacts:
    """A symbol, the size it is bound to, and the values that have it."""

    name: str
    value: int | None
    used_by: tuple[str, ...]


@dataclass(frozen=True)
class FunctionFacts:
    """A local function and how many nodes it has."""

    domain: str
    name: str
    nodes: int


@dataclass(frozen=True)
class GraphFacts:
    """One graph. ``state_bytes`` is None where a size is open; ``weights`` and ``nodes`` are counts by place."""

    inputs: tuple[InputFacts, ...]
    optional: tuple[ValueFacts, ...]
    outputs: tuple[ValueFacts, ...]
    states: tuple[StateFacts, ...]
    unpaired: tuple[Unpaired, ...]
    state_bytes: int | None
    symbols: tuple[SymbolFacts, ...]
    weights: dict[str, int]
    nodes: dict[str, int]
    operators: dict[str, int]
    opsets: dict[str, int]
    ir_version: int
    functions: tuple[FunctionFacts, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """As ``inspect --json`` prints it."""
        return asdict(self)


def facts_of(model: ir.Model, binding: Mapping[str, int] | None = None) -> GraphFacts:
    """The facts of one graph; sizes of states where ``binding`` says how long each symbol is. No weight is read."""
    from ..ir.interface.roles import find_roles
    from ..ir.states import find_states
    from ..ir.states.suspects import suspected_states
    from ..ir.symbolic.symbols import symbols_of

    bound = binding or {}
    states = find_states(model)
    roles = find_roles(model, states)
    given = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    described = tuple(_state(state, bound) for state in states)
    sizes = [state.bytes for state in described]
    symbols = sorted(symbols_of(model).items())
    functions = model.functions.values()
    return GraphFacts(
        inputs=tuple(InputFacts(*_value(value), _role(roles, value)) for value in given),
        optional=tuple(ValueFacts(*_value(value)) for value in model.graph.inputs if value.is_initializer()),
        outputs=tuple(ValueFacts(*_value(value)) for value in model.graph.outputs),
        states=described,
        unpaired=tuple(
            Unpaired(pair.input.name or "", pair.output.name or "") for pair in suspected_states(model, states)
        ),
        state_bytes=sum(size for size in sizes if size is not None) if None not in sizes else None,
        symbols=tuple(SymbolFacts(name, bound.get(name), tuple(places)) for name, places in symbols),
        weights=_weights(model),
        nodes=_nodes(model),
        operators=_operators(model),
        opsets=dict(sorted(model.opset_imports.items())),
        ir_version=model.ir_version,
        functions=tuple(FunctionFacts(one.domain, one.name, sum(1 for _ in one)) for one in functions),
    )


def brief(model: ir.Model) -> dict[str, Any]:
    """The names of inputs and outputs, the symbols, the main graph's nodes: cheap enough to take before every run."""
    from ..ir.symbolic.symbols import symbols_of

    return {
        "inputs": [value.name for value in model.graph.inputs if value.name not in model.graph.initializers],
        "outputs": [value.name for value in model.graph.outputs],
        "symbols": sorted(symbols_of(model)),
        "nodes": len(model.graph),
        "operators": _operators(model),
    }


def _value(value: ir.Value) -> tuple[str, str | None, Dims | None]:
    shape = None if value.shape is None else tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
    return value.name or "", _dtype(value), shape


def _dtype(value: ir.Value) -> str | None:
    return value.dtype.name if value.dtype is not None else None


def _role(roles: Mapping[str, Role], value: ir.Value) -> str:
    role = roles.get(value.name or "")
    return str(role.value) if role is not None else "other"


def _state(state: State, binding: Mapping[str, int]) -> StateFacts:
    from ..ir.symbolic.symbols import dims_of

    value = state.input if state.input is not None else state.output
    assert value is not None, "a state has an input or an output"
    _, dtype, shape = _value(value)
    return StateFacts(
        name=state.name,
        layer=state.layer,
        kind=state.kind,
        layout=state.layout.value,
        axis=state.axis,
        pairing=state.pairing.value,
        input=state.input.name if state.input is not None else None,
        output=state.output.name if state.output is not None else None,
        dtype=dtype,
        shape=shape,
        symbols=tuple(sorted({name for dim in dims_of(value) or () for name in free_symbols(dim)})),
        bytes=_bytes(value, binding),
        evidence=state.evidence,
    )


def _bytes(value: ir.Value, binding: Mapping[str, int]) -> int | None:
    """The size at a binding; None where a dimension stays open."""
    from ..ir.symbolic.symbols import dims_of

    bits = value.dtype.bitwidth if value.dtype is not None else None
    shape = dims_of(value)
    if bits is None or shape is None:
        return None
    count = 1
    for dim in shape:
        size = None if dim is None else substitute(dim, binding)
        if not isinstance(size, int):
            return None
        count *= size
    return (count * bits + 7) // 8


def _weights(model: ir.Model) -> dict[str, int]:
    """How many initializers, and their bytes beside the graph or embedded in it. Nothing is read."""
    import onnx_ir as ir

    external = embedded = count = 0
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            count += 1
            if isinstance(tensor, ir.ExternalTensor):
                external += tensor.nbytes
            elif tensor is not None:
                embedded += tensor.nbytes
    return {"count": count, "bytes": external + embedded, "external_bytes": external, "embedded_bytes": embedded}


def _nodes(model: ir.Model) -> dict[str, int]:
    """Node counts of the main graph, of the bodies inside it, and of functions."""
    from ..ir.core.scopes import nested

    main = len(model.graph)
    inner = sum(len(graph) for graph in nested(model.graph)) - len(model.graph)
    functions = sum(sum(1 for _ in function.all_nodes()) for function in model.functions.values())
    return {"total": main + inner + functions, "main": main, "subgraphs": inner, "functions": functions}


def _operators(model: ir.Model) -> dict[str, int]:
    from ..ir.core.scopes import all_nodes

    names = (f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in all_nodes(model))
    return dict(sorted(Counter(names).items()))
