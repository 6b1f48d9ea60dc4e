"""Optional inputs, which are initializers too, as inputs that must be given: a clone is then fed them in every run."""

from __future__ import annotations

import copy

import onnx_ir as ir

from ...ir.program.program import Program

LEFT_OUT, FED = ", optional inputs left out", ", optional inputs fed"


def optional_inputs(program: Program) -> list[str]:
    """Names of inputs whose default holds numbers, in the graphs' order: one of no rows leaves nothing to feed."""
    found = [v.name or "" for model in program.graphs.values() for v in model.graph.inputs if _has_numbers(v)]
    return list(dict.fromkeys(found))


def without_defaults(program: Program) -> Program:
    """The program with every default of an input taken out; its own graphs are left as they are."""
    other = copy.copy(program)
    other.graphs = {name: _required(model) for name, model in program.graphs.items()}
    return other


def _has_numbers(value: ir.Value) -> bool:
    return value.is_initializer() and value.const_value is not None and value.const_value.size > 0


def _required(model: ir.Model) -> ir.Model:
    if not any(value.is_initializer() for value in model.graph.inputs):
        return model
    other = model.clone()
    for value in [value for value in other.graph.inputs if value.is_initializer()]:
        other.graph.initializers.pop(value.name or "")
        value.const_value = None
    return other
