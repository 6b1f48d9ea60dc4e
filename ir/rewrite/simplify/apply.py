"""The backward half of a round rewires what is still needed and removes the rest."""

from __future__ import annotations

from collections.abc import Container, Iterable

import onnx_ir as ir

from .replace_uses import turn
from .scope import Round


def live_nodes(state: Round) -> set[ir.Node]:
    """The nodes that some graph output needs, replacements made; ``homes`` keeps the constants that they use."""
    live: set[ir.Node] = set()
    used: set[ir.Value] = set()
    work: list[ir.Node] = []

    def need(values: Iterable[ir.Value | None]) -> None:
        for value in values:
            node = None if value is None else value.producer()
            if node is not None:
                if node not in live:
                    live.add(node)
                    work.append(node)
            elif value is not None:
                used.add(value)

    moved, bodies = state.moved, state.bodies
    need(moved.get(value, value) for value in state.model.graph.outputs)
    while work:
        node = work.pop()
        need(state.read(node))
        for graph in bodies.get(node, ()) if bodies else ():
            need(moved.get(output, output) for output in graph.outputs)
    state.homes = {value: home for value, home in state.homes.items() if value in used}
    return live


def apply(state: Round) -> bool:
    """Makes the round's replacements; True where the model is another one than before."""
    live = live_nodes(state)
    changed = _outputs(state)
    nodes = [list(graph) for graph in state.graphs]
    for node in (node for inside in nodes for node in inside if node in live):
        changed |= _rewire(state, node)
    dead = [[node for node in inside if node not in live] for inside in nodes]
    for node in (node for inside in dead for node in inside):
        _detach(node, live)
    for graph, inside in zip(state.graphs, dead, strict=True):
        graph.remove(inside)
        state.count("nodes", len(inside))
    _register(state)
    return changed or any(dead)


def _outputs(state: Round) -> bool:
    """An inner value that stands in for a graph output becomes that output, under its name and declared type."""
    for inner, output in state.names.items():
        graph = output.graph
        if graph is None:
            continue
        name, output.name = output.name, None
        for place, value in enumerate(graph.outputs):
            if value is output:
                graph.outputs[place] = inner
        inner.name = name
        inner.shape = output.shape if output.shape is not None else inner.shape
        inner.type = output.type if output.type is not None else inner.type
    return bool(state.names)


def _rewire(state: Round, node: ir.Node) -> bool:
    """Gives a live node its new inputs."""
    edited = state.inputs.get(node)
    if edited is not None and len(edited) != len(node.inputs):
        node.resize_inputs(len(edited))
    changed = False
    moved = state.moved
    for place, value in enumerate(node.inputs):
        new = edited[place] if edited is not None else None if value is None else moved.get(value)
        if new is not None and new is not value:
            node.replace_input_with(place, new)
            changed = True
    perm = state.perms.get(node)
    if perm is not None:
        node.attributes["perm"] = ir.AttrInt64s("perm", perm)
    if node in state.copying:
        node.attributes.pop("allowzero", None)
    if node in state.turned:
        turn(node)
    return changed or perm is not None or node in state.turned


def _detach(node: ir.Node, live: Container[ir.Node]) -> None:
    """Removes a dead node from the uses of all values that stay; those in its bodies are dead too."""
    for place, value in enumerate(node.inputs):
        source = None if value is None else value.producer()
        if value is not None and (source is None or source in live):
            node.replace_input_with(place, None)


def _register(state: Round) -> None:
    """Used constants become initializers of their graphs; one whose name is still taken gets another."""
    if not state.homes:
        return
    taken = {value.name for graph in state.graphs for node in graph for value in node.outputs}
    taken |= {value.name for value in state.model.graph.inputs} | set(state.model.graph.initializers)
    for value, graph in state.homes.items():
        origin = state.origins[value]
        if value.name in taken or not value.name:
            value.name = unused_name(taken, f"{origin.name or 'value'}_constant")
        taken.add(value.name)
        graph.register_initializer(value)


def unused_name(taken: Container[str | None], wish: str) -> str:
    """``wish``, or with the first number that makes it new."""
    name, number = wish, 1
    while name in taken:
        number += 1
        name = f"{wish}_{number}"
    return name
