"""The structure is verified: values exist before they are read, a name is one value's, every call resolves."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

from .errors import ONE_GRAPH, ProgramInvalid, expect
from .scopes import Scope

_SUBGRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


@dataclass(frozen=True)
class _Place:
    """Where a scope stands: what to call it, what the scopes around it have defined so far, what may be called."""

    where: str
    outer: tuple[set[ir.Value | None], ...]
    functions: Collection[ir.OperatorIdentifier]
    domains: frozenset[str]


def check_structure(model: ir.Model) -> None:
    """Checks the main graph, every subgraph and every function; raises ProgramInvalid naming graph, node and value.

    Each node input is None, a graph input, an initializer, or the output of an earlier node of the same or an outer
    scope; a scope gives each name once; outputs are computed, of the main graph typed and named once; initializers have
    values; each operator is a defined function or of an imported domain.
    """
    expect(ir.Model, model, "check_structure", ONE_GRAPH)
    graph, functions = model.graph, model.functions
    where = f"graph {graph.name!r}"
    _check_scope(graph, _Place(where, (), functions, frozenset(model.opset_imports)))
    _check_outputs(graph, where)
    for function in functions.values():
        where = f"function '{function.domain}::{function.name}'"
        _check_scope(function, _Place(where, (), functions, frozenset(function.opset_imports)))


def _check_scope(scope: Scope, place: _Place) -> None:
    """Walks one scope in order, then the scopes inside each node where they stand."""
    known, names = _header(scope, place.where)
    domains, functions = place.domains, place.functions
    here: set[ir.Value | None] = {*known, None}  # an input left out is no value
    for node in scope:
        if not here.issuperset(node.inputs):
            _check_inputs(node, here, place)
        if node.domain not in domains and node.op_identifier() not in functions:
            raise _unknown_operator(node, place)
        if node.attributes.data:
            _check_subgraphs(node, here, place)
        for output in node.outputs:
            name = output.name
            if name in names:
                raise _taken(output, node, place.where)
            if name:
                names.add(name)
            elif output.uses():
                raise ProgramInvalid("a value that is used has no name", where=_at(node, place.where))
            here.add(output)
    for output in scope.outputs:
        if output not in here and not any(output in outer for outer in place.outer):
            raise ProgramInvalid(
                "an output is computed nowhere in its graph", where=place.where, found=repr(output.name)
            )


def _check_inputs(node: ir.Node, here: Collection[ir.Value | None], place: _Place) -> None:
    """What a node reads of no earlier node of its own scope comes from a scope around it."""
    for value in node.inputs:
        if value is not None and value not in here and not any(value in outer for outer in place.outer):
            raise _unknown_value(value, node, place.where)


def _header(scope: Scope, where: str) -> tuple[set[ir.Value], set[str | None]]:
    """The values and names that a scope has before its first node."""
    known = set(scope.inputs)
    if isinstance(scope, ir.Graph):
        for name, value in scope.initializers.items():
            if value.const_value is None:
                raise ProgramInvalid("an initializer has no value", where=where, found=repr(name))
            known.add(value)
    names = {value.name for value in known}
    if len(names) < len(known) or len(known) < len(scope.inputs):
        twice = _repeated([value.name for value in [*scope.inputs, *(known - set(scope.inputs))]])
        raise ProgramInvalid("a name is given to two inputs or initializers", where=where, found=repr(twice))
    if None in names or "" in names:
        raise ProgramInvalid("an input has no name", where=where)
    return known, names


def _check_subgraphs(node: ir.Node, known: set[ir.Value | None], place: _Place) -> None:
    for attribute in node.attributes.data.values():
        if attribute.type not in _SUBGRAPHS or attribute.is_ref():
            continue
        graphs = [attribute.as_graph()] if attribute.type is ir.AttributeType.GRAPH else attribute.as_graphs()
        for graph in graphs:
            where = f"{_at(node, place.where)}, {attribute.name} {graph.name!r}"
            _check_scope(graph, _Place(where, (*place.outer, known), place.functions, place.domains))


def _check_outputs(graph: ir.Graph, where: str) -> None:
    names = [output.name for output in graph.outputs]
    if len(set(names)) < len(names):
        raise ProgramInvalid("two outputs have one name", where=where, found=repr(_repeated(names)))
    for output in graph.outputs:
        if output.type is None or output.dtype is ir.DataType.UNDEFINED:
            raise ProgramInvalid("an output has no type", where=where, found=repr(output.name), wanted="a dtype")


def _repeated(names: list[str | None]) -> str | None:
    return next(name for index, name in enumerate(names) if name in names[:index])


def _at(node: ir.Node, where: str) -> str:
    return f"{where}, node {node.name!r} ({node.op_type})"


def _unknown_value(value: ir.Value, node: ir.Node, where: str) -> ProgramInvalid:
    producer = value.producer()
    if producer is None:
        found = f"{value.name!r}, which is no input and no initializer of the graph"
    elif producer.graph is None:
        found = f"{value.name!r}, whose node {producer.name!r} ({producer.op_type}) was removed"
    else:
        found = f"{value.name!r}, which node {producer.name!r} ({producer.op_type}) computes later or in another scope"
    return ProgramInvalid("a node reads a value that does not exist before it", where=_at(node, where), found=found)


def _unknown_operator(node: ir.Node, place: _Place) -> ProgramInvalid:
    return ProgramInvalid(
        "a node calls what is not defined",
        where=_at(node, place.where),
        found=f"{node.domain}::{node.op_type}",
        wanted=f"a function of the model, or a domain of its opset imports: {sorted(place.domains)}",
    )


def _taken(output: ir.Value, node: ir.Node, where: str) -> ProgramInvalid:
    return ProgramInvalid("a name is given to two values", where=_at(node, where), found=repr(output.name))
