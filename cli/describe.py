"""A graph becomes plain data: what ``inspect --json`` prints, and what ``diff`` and the reports compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..ir.symbolic.dims import free_symbols, substitute

if TYPE_CHECKING:
    import onnx_ir as ir

    from ..ir.program.program import Program
    from ..ir.states.base import State

SCHEMA = 1


def describe_program(program: Program, *, binding: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Every graph of ``program`` described; sizes of states where ``binding`` says how long each symbol is."""
    return {
        "schema": SCHEMA,
        "binding": dict(binding or {}),
        "made_by": [provenance.pipeline for provenance in program.earlier],
        "assumptions": list(program.assumptions),
        "graphs": {name: describe_graph(model, binding or {}) for name, model in program.graphs.items()},
    }


def describe_graph(model: ir.Model, binding: Mapping[str, int]) -> dict[str, Any]:
    """Inputs with roles, outputs, states, symbols, sizes, opsets, functions and operators of one graph."""
    from ..ir.interface.roles import find_roles
    from ..ir.states import find_states
    from ..ir.states.suspects import suspected_states
    from ..ir.symbolic.symbols import symbols_of

    states = find_states(model)
    roles = find_roles(model, states)
    inputs = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    described = [_state(state, binding) for state in states]
    sizes = [state["bytes"] for state in described]
    return {
        "inputs": [_value(value) | {"role": _role(roles, value)} for value in inputs],
        "optional": [_value(value) for value in model.graph.inputs if value.is_initializer()],
        "outputs": [_value(value) for value in model.graph.outputs],
        "states": described,
        "unpaired": [
            {"input": suspect.input.name, "output": suspect.output.name} for suspect in suspected_states(model, states)
        ],
        "state_bytes": sum(sizes) if None not in sizes else None,
        "symbols": [
            {"name": name, "value": binding.get(name), "used_by": places}
            for name, places in sorted(symbols_of(model).items())
        ],
        "weights": _weights(model),
        "nodes": _nodes(model),
        "operators": _operators(model),
        "opsets": dict(sorted(model.opset_imports.items())),
        "ir_version": model.ir_version,
        "functions": [
            {"domain": function.domain, "name": function.name, "nodes": sum(1 for _ in function)}
            for function in model.functions.values()
        ],
    }


def brief(model: ir.Model) -> dict[str, Any]:
    """The names of inputs and outputs, the symbols, the main graph's nodes: cheap enough to take before every run."""
    from ..ir.symbolic.symbols import symbols_of

    return {
        "inputs": [value.name for value in model.graph.inputs if value.name not in model.graph.initializers],
        "outputs": [value.name for value in model.graph.outputs],
        "symbols": sorted(symbols_of(model)),
        "nodes": len(model.graph),
    }


def _value(value: ir.Value) -> dict[str, Any]:
    return {"name": value.name, "dtype": _dtype(value), "shape": _shape(value)}


def _shape(value: ir.Value) -> list[int | str | None] | None:
    """Integers, dim_params as written, None where unknown."""
    return None if value.shape is None else [dim if isinstance(dim, int) else dim.value for dim in value.shape]


def _dtype(value: ir.Value) -> str | None:
    return value.dtype.name if value.dtype is not None else None


def _role(roles: Mapping[str, Any], value: ir.Value) -> str:
    role = roles.get(value.name or "")
    return str(role.value) if role is not None else "other"


def _state(state: State, binding: Mapping[str, int]) -> dict[str, Any]:
    from ..ir.symbolic.symbols import dims_of

    value = state.input if state.input is not None else state.output
    assert value is not None, "a state has an input or an output"
    return {
        "name": state.name,
        "layer": state.layer,
        "kind": state.kind,
        "layout": state.layout.value,
        "axis": state.axis,
        "pairing": state.pairing.value,
        "input": state.input.name if state.input is not None else None,
        "output": state.output.name if state.output is not None else None,
        "dtype": _dtype(value),
        "shape": _shape(value),
        "symbols": sorted({name for dim in dims_of(value) or () for name in free_symbols(dim)}),
        "bytes": _bytes(value, binding),
        "evidence": state.evidence,
    }


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
